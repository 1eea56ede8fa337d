//! The decision: who may do what.
//!
//! One pure function, [`authorize`], decides every connection and request; the proxy, the control
//! plane and the command line all call this one. It does no I/O and reads no clock. Policies come in as
//! [`PolicySpec`]s, the values that users wrote; [`PolicySet::compile`] turns those that select a
//! workload into an index once, off the hot path.

#![warn(missing_docs)]

mod compile;
mod context;
mod decide;
mod explain;
mod facts;
mod fields;
mod index;
mod matchers;
pub mod path;
mod set;
mod spec;

pub use context::{Compat, Context};
pub use decide::{
    Denial, External, ExternalAnswer, Permit, Shadow, ShadowVerdict, authorize, authorize_with, providers,
};
pub use explain::{Explanation, NearMiss, Step, explain, explain_with, near_miss};
pub use facts::{Claim, ClaimLookup, Facts, HeaderLookup, HttpFacts};
pub use fields::{reads_as, speaks_for_proxy};
pub use set::PolicySet;
pub use spec::{
    Action, ConditionSpec, Invalid, OperationSpec, Origin, PolicyId, PolicySpec, RuleSpec, SourceSpec,
};
