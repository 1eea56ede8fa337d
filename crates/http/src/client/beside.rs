//! The connection of HTTP/2, polled by the task that hands requests to it.
//!
//! The codec begins a stream in three steps: it asks whether the connection takes one, begins it, and asks again. Where
//! GOAWAY is read by another thread just before the third, the request counts as not looked at although it leaves. On one
//! task nothing comes in between, and it costs one change of tasks less for each request.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::task::Poll;

use hyper::rt::Executor;

type Connection = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Keeps the first future that the codec wants to be run, which is the connection; the others get tasks of their own.
#[derive(Clone, Debug, Default)]
pub(super) struct Beside(Arc<Kept>);

#[derive(Default)]
struct Kept {
    has_come: AtomicBool,
    connection: Mutex<Option<Connection>>,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Beside {
    fn execute(&self, future: F) {
        if self.0.has_come.swap(true, Ordering::Relaxed) {
            tokio::spawn(future);
        } else {
            *self.kept() = Some(Box::pin(future));
        }
    }
}

impl Beside {
    /// Runs what hands requests over and the connection, until both have ended; `counter` is closed with the first.
    pub(super) async fn run<T>(self, handing: impl Future<Output = T>, counter: Counter) -> T {
        let mut connection = self.kept().take();
        let mut handing = Some(Box::pin(handing));
        let mut ended = None;
        poll_fn(|context| {
            if let Some(still) = &mut handing
                && let Poll::Ready(how) = still.as_mut().poll(context)
            {
                ended = Some(how);
                counter.close(handing.take());
            }
            connection.take_if(|connection| connection.as_mut().poll(context).is_ready());
            match ended.take_if(|_| connection.is_none()) {
                Some(how) => Poll::Ready(how),
                None => Poll::Pending,
            }
        })
        .await
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Option<Connection>> {
        self.0.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where requests are handed over to a connection. The channel below loses one that is handed over just while its reader
/// is dropped: nobody would ever answer it. So neither happens during the other.
#[derive(Clone, Debug, Default)]
pub(super) struct Counter(Arc<RwLock<()>>);

impl Counter {
    /// Hands something over.
    pub(super) fn hand<T>(&self, over: impl FnOnce() -> T) -> T {
        let _open = self.0.read().unwrap_or_else(PoisonError::into_inner);
        over()
    }

    /// Drops who takes what is handed over: nothing is, meanwhile.
    pub(super) fn close<T>(&self, taker: T) {
        let _closed = self.0.write().unwrap_or_else(PoisonError::into_inner);
        drop(taker);
    }
}
