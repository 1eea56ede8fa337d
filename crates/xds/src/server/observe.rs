//! Who is told what goes over the streams.

use std::time::Duration;

/// Is told of each response and its answer; it must not block.
pub trait Observe: std::fmt::Debug + Send + Sync + 'static {
    /// A response of so many bytes is on its way.
    fn pushed(&self, bytes: usize);

    /// It was answered after that time: taken, or refused.
    fn answered(&self, after: Duration, refused: bool);
}
