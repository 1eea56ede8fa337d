//! What single texts look like: names, hosts, addresses, durations, headers, regular expressions.
//!
//! Pure functions from a text to what it is, or to why it is none. They know no object and no place.

pub(crate) mod addresses;
pub(crate) mod certificates;
pub(crate) mod durations;
pub(crate) mod headers;
pub(crate) mod hosts;
pub(crate) mod names;
pub(crate) mod regex;

/// Nothing, or why a text is not what it should be: a clause that follows the path of the field.
pub(crate) type Verdict = Result<(), String>;
