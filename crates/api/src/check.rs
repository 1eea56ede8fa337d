//! What one object can say about itself beyond its structure.

use crate::known::KnownKind;
use crate::object::Meta;
use crate::report::Report;
use crate::yaml::Node;

/// Whether the names are names.
pub(crate) fn names(known: Option<&KnownKind>, meta: &Meta, root: &Node, report: &mut Report<'_>) {
    let _ = (known, meta, root, report);
}

/// The rules of the kind.
pub(crate) fn object(known: &KnownKind, meta: &Meta, root: &Node, report: &mut Report<'_>) {
    let _ = (known, meta, root, report);
}
