use std::sync::atomic::AtomicBool;
use std::time::Duration;

use snapshot::{Resource, Resources};

use super::*;

fn resources() -> Resources {
    [Resource::from(crate::store::tests::mesh())]
        .into_iter()
        .collect()
}

fn index() -> Index {
    Index::build(&resources()).unwrap()
}

/// A check that admits for as long as the flag says so.
fn admitted(flag: &Arc<AtomicBool>) -> impl Fn(&Index) -> Result<(), Reason> + Send + Sync + 'static {
    let flag = Arc::clone(flag);
    move |_| {
        flag.load(Ordering::SeqCst)
            .then_some(())
            .ok_or(Reason::DenyExplicit)
    }
}

async fn is_closed(entry: &Entry) -> Option<Reason> {
    tokio::time::timeout(Duration::from_millis(20), entry.closed())
        .await
        .ok()
}

#[tokio::test]
async fn p_55_what_is_no_longer_admitted_is_closed_and_nothing_else() {
    let registry = Registry::default();
    let flag = Arc::new(AtomicBool::new(true));
    let revoked = registry.register(admitted(&flag)).unwrap();
    let kept = registry.register(|_| Ok(())).unwrap();
    registry.recheck(&index()).await;
    assert_eq!(is_closed(&revoked).await, None);
    flag.store(false, Ordering::SeqCst);
    registry.recheck(&index()).await;
    assert_eq!(is_closed(&revoked).await, Some(Reason::DenyExplicit));
    assert_eq!(is_closed(&kept).await, None);
    // Once closed, always closed: also where a later snapshot would admit it again.
    flag.store(true, Ordering::SeqCst);
    registry.recheck(&index()).await;
    assert_eq!(is_closed(&revoked).await, Some(Reason::DenyExplicit));
}

#[tokio::test]
async fn p_55_all_that_wait_are_told() {
    let registry = Registry::default();
    let flag = Arc::new(AtomicBool::new(true));
    let entry = registry.register(admitted(&flag)).unwrap();
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let entry = entry.clone();
            tokio::spawn(async move { entry.closed().await })
        })
        .collect();
    tokio::task::yield_now().await;
    flag.store(false, Ordering::SeqCst);
    registry.recheck(&index()).await;
    for one in waiting {
        assert_eq!(one.await.unwrap(), Reason::DenyExplicit);
    }
}

#[tokio::test]
async fn p_55_who_waits_again_is_remembered_once() {
    let registry = Registry::default();
    let entry = registry.register(|_| Ok(())).unwrap();
    for _ in 0..10 {
        assert_eq!(is_closed(&entry).await, None);
    }
    let waiting = locked(&entry.0.waiting);
    assert_eq!((waiting.few.iter().flatten().count(), waiting.more.len()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p_55_no_swap_falls_between_registering_and_deciding() {
    // Each connection registers, then decides by the snapshot in force. A swap revokes at some moment in between: either
    // the decision sees it or the entry is told.
    for round in 0..200_u64 {
        let registry = Arc::new(Registry::default());
        let store = Arc::new(Store::new());
        store.swap(&resources(), 1).unwrap();
        let follow = {
            let (registry, store) = (Arc::clone(&registry), Arc::clone(&store));
            tokio::spawn(async move { registry.follow(&store).await })
        };
        let first = store.current().unwrap();
        let swap = {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for _ in 0..round % 7 {
                    tokio::task::yield_now().await;
                }
                store.swap(&resources(), 2).unwrap();
            })
        };
        let admits = {
            let first = Arc::as_ptr(&first) as usize;
            move |index: &Index| {
                (std::ptr::from_ref(index) as usize == first)
                    .then_some(())
                    .ok_or(Reason::PolicyChanged)
            }
        };
        let entry = registry.register(admits).unwrap();
        if admits(&store.current().unwrap()).is_ok() {
            let told = tokio::time::timeout(Duration::from_secs(5), entry.closed()).await;
            assert_eq!(told, Ok(Reason::PolicyChanged), "round {round}");
        }
        swap.await.unwrap();
        follow.abort();
    }
}

#[tokio::test]
async fn places_are_bounded_and_given_back() {
    let registry = Registry::with_limit(2);
    let first = registry.register(|_| Ok(())).unwrap();
    let _second = registry.register(|_| Ok(())).unwrap();
    assert_eq!(registry.register(|_| Ok(())).unwrap_err(), Reason::LimitReached);
    drop(first);
    assert_eq!(registry.len(), 1);
    assert!(registry.register(|_| Ok(())).is_ok());
    let shards = registry.places.shards.iter();
    assert_eq!(shards.map(|s| locked(s).len()).sum::<usize>(), 1);
}

#[tokio::test]
async fn a_check_may_take_and_give_back_places() {
    let registry = Arc::new(Registry::default());
    let inner = Arc::clone(&registry);
    let _entry = registry
        .register(move |_| inner.register(|_| Ok(())).map(drop))
        .unwrap();
    let index = index();
    let check = registry.recheck(&index);
    tokio::time::timeout(Duration::from_secs(5), check).await.unwrap();
}
