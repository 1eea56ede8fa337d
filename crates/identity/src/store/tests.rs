//! The owner under virtual time.
