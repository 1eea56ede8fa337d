use std::net::SocketAddr;
use std::sync::Arc;

use model::ServiceName;
use snapshot::{Index, Lacks, Resource, Resources, Service};

use super::super::tests::mesh;
use super::*;

const DIALLED: &str = "10.96.0.20:80";

fn name(text: &str) -> ResourceName {
    ResourceName::from(text)
}

fn web() -> Resource {
    let dialled: SocketAddr = DIALLED.parse().unwrap();
    Resource::from(Service {
        external: None,
        name: ServiceName::new("full", "web"),
        host: "web.full.svc.cluster.local".parse().unwrap(),
        vips: vec![dialled.ip()],
        headless: false,
        external_name: None,
        ports: vec![],
        endpoints: vec![],
        identities: vec![],
    })
}

/// A store that holds these beside the mesh.
fn store(with: Vec<Resource>) -> Arc<Store> {
    let store = Arc::new(Store::on_demand());
    swap(&store, with);
    store
}

fn swap(store: &Store, with: Vec<Resource>) {
    let all: Resources = with.into_iter().chain([mesh().into()]).collect();
    store.swap(&all, 1).unwrap();
}

fn connected() -> Arc<Demand> {
    let demand = Demand::default();
    demand.interest.connected(true);
    Arc::new(demand)
}

fn dial(index: &Index) -> Vec<ResourceName> {
    let lacks = Lacks::default();
    let dialled: SocketAddr = DIALLED.parse().unwrap();
    let asker = index.asker("full", None);
    let _ = index.find_outbound(asker, dialled, snapshot::Claim::Host("web"), &lacks);
    lacks.into_names()
}

#[tokio::test(start_paused = true)]
async fn first_uses_at_the_same_time_share_one_question() {
    let (store, demand) = (store(vec![]), connected());
    let lacks = dial(&store.current().unwrap());
    assert_eq!(lacks, [name("address/10.96.0.20"), name("service/full/web")]);
    let waiting: Vec<_> = (0..20)
        .map(|mark| {
            let (store, demand) = (Arc::clone(&store), Arc::clone(&demand));
            tokio::spawn(async move { demand.learn(&store, mark, &[name("service/full/web")]).await })
        })
        .collect();
    tokio::task::yield_now().await;
    assert_eq!(
        demand.interest.names().into_iter().collect::<Vec<_>>(),
        [name("service/full/web")]
    );
    // Another answer is not the one that is waited for.
    swap(&store, vec![Resource::Absent(name("service/full/other"))]);
    tokio::task::yield_now().await;
    assert!(waiting.iter().all(|task| !task.is_finished()));
    swap(&store, vec![web()]);
    for task in waiting {
        assert_eq!(task.await.unwrap(), Ok(()));
    }
    assert!(
        dial(&store.current().unwrap()).is_empty(),
        "its address is known with it"
    );
    assert_eq!(locked(&demand.waiting).all, 0);
    assert!(locked(&demand.waiting).of_one.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_nobody_answers_in_time_is_refused() {
    let (store, demand) = (store(vec![]), connected());
    let begin = Instant::now();
    let learned = demand.learn(&store, 1, &[name("service/full/web")]).await;
    assert_eq!(
        (learned, begin.elapsed()),
        (Err(Reason::ControlPlaneAway), TIMEOUT)
    );
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_control_plane_that_is_away_and_what_is_held_is_used() {
    let (store, demand) = (store(vec![web()]), connected());
    demand.interest.connected(false);
    tokio::time::advance(AWAY + Duration::from_secs(1)).await;
    let begin = Instant::now();
    let known = demand.learn(&store, 1, &[name("service/full/web")]).await;
    let unknown = demand.learn(&store, 1, &[name("service/full/other")]).await;
    assert_eq!((known, unknown), (Ok(()), Err(Reason::ControlPlaneAway)));
    assert_eq!(begin.elapsed(), Duration::ZERO);
    // It is asked as soon as there is somebody to ask.
    assert!(demand.interest.names().contains(&name("service/full/other")));
    // And nothing is forgotten that could not be had again.
    for _ in 0..100 {
        demand.round(&store);
    }
    assert!(demand.interest.names().contains(&name("service/full/other")));
}

#[tokio::test(start_paused = true)]
async fn one_workload_cannot_take_the_places_of_all() {
    let (store, demand) = (store(vec![]), connected());
    let wait = |mark: u32| {
        let (store, demand) = (Arc::clone(&store), Arc::clone(&demand));
        tokio::spawn(async move { demand.learn(&store, mark, &[name("service/full/web")]).await })
    };
    let greedy: Vec<_> = (0..MAX_WAITING_OF_ONE).map(|_| wait(1)).collect();
    tokio::task::yield_now().await;
    assert_eq!(wait(1).await.unwrap(), Err(Reason::LimitReached));
    let other = wait(2);
    swap(&store, vec![web()]);
    assert_eq!(other.await.unwrap(), Ok(()));
    for task in greedy {
        assert_eq!(task.await.unwrap(), Ok(()));
    }
    let many: Vec<_> = (0..MAX_WAITING)
        .map(|n| demand.place(u32::try_from(n).unwrap()))
        .collect();
    assert!(many.iter().all(Result::is_ok));
    assert!(matches!(demand.place(9), Err(Reason::LimitReached)));
}

#[tokio::test]
async fn what_is_not_used_is_forgotten_and_what_does_not_exist_sooner() {
    let (there, absent) = (name("service/full/web"), name("service/full/none"));
    let (store, demand) = (store(vec![web(), Resource::Absent(absent.clone())]), connected());
    demand.interest.add(&[there.clone(), absent.clone()]).unwrap();
    let rounds_until = |gone: &ResourceName, using: bool| {
        (1..1000).find(|_| {
            if using {
                dial(&store.current().unwrap());
            }
            demand.round(&store);
            !demand.interest.names().contains(gone)
        })
    };
    let of = |limit: Duration| i32::try_from(limit.as_secs() / ROUND.as_secs()).unwrap();
    // The first round counts as use: it had just come.
    let first = rounds_until(&absent, true).unwrap();
    assert_eq!(first, of(ABSENT) + 2);
    assert_eq!(rounds_until(&there, true), None, "in use");
    let idle = rounds_until(&there, false).unwrap();
    assert_eq!(idle, of(IDLE) + 1);
}

#[tokio::test]
async fn an_address_is_in_use_as_long_as_a_service_of_it_is() {
    let asked = name("address/10.96.0.20");
    let at = snapshot::Address {
        address: "10.96.0.20".parse().unwrap(),
        service: Some(ServiceName::new("full", "web")),
        workloads: vec![],
        serving: vec![],
    };
    let (store, demand) = (store(vec![web(), Resource::Address(Arc::new(at))]), connected());
    demand.interest.add(std::slice::from_ref(&asked)).unwrap();
    for _ in 0..100 {
        dial(&store.current().unwrap());
        demand.round(&store);
    }
    assert!(demand.interest.names().contains(&asked));
    for _ in 0..100 {
        demand.round(&store);
    }
    assert!(!demand.interest.names().contains(&asked));
}

#[tokio::test]
async fn names_that_do_not_exist_make_room_for_others() {
    let demand = connected();
    let absent: Vec<_> = (0..MAX_NAMES)
        .map(|n| name(&format!("service/full/none-{n}")))
        .collect();
    let answers = absent.iter().cloned().map(Resource::Absent).chain([web()]);
    let store = store(answers.collect());
    demand.ask(&store, &absent).unwrap();
    assert_eq!(demand.interest.len(), MAX_NAMES);
    let wanted = name("service/full/web");
    demand.ask(&store, std::slice::from_ref(&wanted)).unwrap();
    assert_eq!(demand.interest.names().into_iter().collect::<Vec<_>>(), [wanted]);
    // Where all that is held exists and is in use, there is no room.
    let pending: Vec<_> = (0..MAX_NAMES)
        .map(|n| name(&format!("service/full/new-{n}")))
        .collect();
    assert_eq!(demand.ask(&store, &pending), Err(Reason::LimitReached));
}
