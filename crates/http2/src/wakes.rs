//! Who is to be woken, once nothing is locked any more.

use std::task::{Context, Waker};

/// Those who wait for what has just happened. Mostly it is one.
#[derive(Debug, Default)]
pub struct Wakes {
    one: Option<Waker>,
    more: Vec<Waker>,
}

impl Wakes {
    pub(crate) fn push(&mut self, waker: Option<Waker>) {
        let Some(waker) = waker else { return };
        match self.one {
            None => self.one = Some(waker),
            Some(_) => self.more.push(waker),
        }
    }

    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.one.is_none()
    }

    /// Wakes them.
    pub fn wake(self) {
        if let Some(one) = self.one {
            one.wake();
        }
        self.more.into_iter().for_each(Waker::wake);
    }
}

/// Remembers who is to be woken.
pub(crate) fn remember(place: &mut Option<Waker>, context: &Context<'_>) {
    match place {
        Some(waker) => waker.clone_from(context.waker()),
        None => *place = Some(context.waker().clone()),
    }
}
