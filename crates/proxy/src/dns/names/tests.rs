use hickory_proto::op::{MessageType, OpCode};
use hickory_proto::rr::rdata::CNAME;
use tokio::net::UdpSocket;

use super::*;

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn name(text: &str) -> Name {
    absolute(text).unwrap()
}

fn message(code: ResponseCode, records: &[(&str, u32, RData)]) -> Message {
    let mut message = Message::response(1, OpCode::Query);
    message.metadata.response_code = code;
    for (of, ttl, data) in records {
        message.add_answer(Record::from_rdata(name(of), *ttl, data.clone()));
    }
    message
}

fn a(address: &str) -> RData {
    RData::from(address.parse::<IpAddr>().unwrap())
}

fn known() -> Known {
    let now = Instant::now();
    Known {
        newest: Arc::default(),
        fresh_until: now,
        good_until: now,
        seen: BTreeMap::new(),
        used: now,
        asking: Arc::default(),
    }
}

/// A server that answers as `table` says, and with NXDOMAIN otherwise; dropped, it is silent.
async fn server(
    table: &'static [(&'static str, &'static [&'static str])],
) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = socket.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let query = Message::from_vec(&buffer[..length]).unwrap();
            let asked = query.queries[0].clone();
            let mut answer = Message::response(query.metadata.id, OpCode::Query);
            answer.metadata.message_type = MessageType::Response;
            answer.add_query(asked.clone());
            let found = table.iter().find(|(of, _)| name(of) == *asked.name());
            if found.is_none() {
                answer.metadata.response_code = ResponseCode::NXDomain;
            }
            for address in found.map(|(_, addresses)| ips(addresses)).into_iter().flatten() {
                if address.is_ipv6() == (asked.query_type() == RecordType::AAAA) {
                    answer.add_answer(Record::from_rdata(asked.name().clone(), 1, RData::from(address)));
                }
            }
            socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
        }
    });
    (at, serving)
}

#[test]
fn an_answer_is_read_along_its_aliases_and_no_further() {
    let alias = |to: &str| RData::CNAME(CNAME(name(to)));
    let answer = message(
        ResponseCode::NoError,
        &[
            ("a.example", 60, alias("b.example")),
            ("b.example", 30, a("192.0.2.1")),
            ("b.example", 90, a("192.0.2.2")),
            // Of nobody that was asked about.
            ("evil.example", 1, a("10.0.0.1")),
        ],
    );
    let Said::Addresses(addresses, ttl) = said(&name("a.example"), &answer) else {
        panic!("nothing was said");
    };
    assert_eq!(addresses, ips(&["192.0.2.1", "192.0.2.2"]));
    assert_eq!(ttl, Duration::from_secs(30));
    let round = message(ResponseCode::NoError, &[("a.example", 60, alias("a.example"))]);
    assert!(matches!(said(&name("a.example"), &round), Said::Addresses(none, _) if none.is_empty()));
    let broken = message(ResponseCode::ServFail, &[]);
    assert!(matches!(said(&name("a.example"), &broken), Said::Nothing));
}

#[test]
fn the_last_good_answer_stays_for_an_hour_while_nobody_answers_and_ends_with_the_name() {
    let (mut known, now) = (known(), Instant::now());
    let good = || Said::Addresses(ips(&["192.0.2.1"]), Duration::from_secs(60));
    let none = || Said::Addresses(Vec::new(), MIN_TTL);
    known.answered([good(), none()], now);
    assert_eq!(known.fresh_until, now + MIN_TTL);
    let later = now + MAX_STALE - Duration::from_secs(1);
    known.answered([Said::Nothing, Said::Nothing], later);
    assert_eq!(
        *known.newest,
        ips(&["192.0.2.1"]),
        "a silent server takes nothing away"
    );
    assert_eq!(known.fresh_until, later + RETRY);
    known.answered([Said::Nothing, Said::Nothing], now + MAX_STALE);
    assert!(known.newest.is_empty(), "what is too old is not used");
    known.answered([good(), none()], later);
    known.answered([none(), none()], later);
    assert!(
        known.newest.is_empty(),
        "a server that says there is no such name ends it"
    );
}

#[test]
fn addresses_of_a_name_are_bounded() {
    let (mut known, now) = (known(), Instant::now());
    for at in 0..=u8::MAX {
        let address = IpAddr::from([192, 0, 2, at]);
        known.answered([Said::Addresses(vec![address], MIN_TTL), Said::Nothing], now);
    }
    assert_eq!(known.seen.len(), MAX_ADDRESSES);
    let many: Vec<_> = (0..=u8::MAX).map(|at| IpAddr::from([192, 0, 2, at])).collect();
    known.answered([Said::Addresses(many, MIN_TTL), Said::Nothing], now);
    assert_eq!(known.newest.len(), MAX_ADDRESSES);
}

#[tokio::test]
async fn eg_17_a_name_is_where_the_servers_say_and_nowhere_else() {
    let (at, _serving) = server(&[("ext.example.com", &["192.0.2.7", "2001:db8::7"])]).await;
    let names = Arc::new(Names::default());
    let is_at = async |name: &str, address: &str| {
        let address = address.parse().unwrap();
        names.is_at(&[at], name, address).await
    };
    assert!(is_at("ext.example.com", "192.0.2.7").await);
    assert!(is_at("ext.example.com", "2001:db8::7").await);
    assert!(
        !is_at("ext.example.com", "203.0.113.9").await,
        "the client's word counts for nothing"
    );
    assert!(!is_at("other.example.com", "192.0.2.7").await);
    assert!(names.some_at(
        |name| name.ends_with(".example.com"),
        "192.0.2.7".parse().unwrap()
    ));
    // What a workload was told by the same servers counts too: answers turn round.
    let question = Query::query(name("EXT.example.com."), RecordType::A);
    names.learn(
        &question,
        &message(ResponseCode::NoError, &[("ext.example.com", 5, a("192.0.2.8"))]),
    );
    assert!(is_at("ext.example.com", "192.0.2.8").await);
}

#[tokio::test]
async fn without_a_server_a_name_is_nowhere() {
    let names = Arc::new(Names::default());
    assert!(names.addresses(&[], "ext.example.com").await.is_empty());
    assert!(
        !names
            .is_at(&[], "ext.example.com", "192.0.2.7".parse().unwrap())
            .await
    );
}

#[tokio::test(start_paused = true)]
async fn names_are_bounded_and_those_used_last_stay_whoever_asks_for_many() {
    let names = Arc::new(Names::default());
    names.know("old.example", &["192.0.2.1"]);
    names.know("used.example", &["192.0.2.2"]);
    for at in 0..2 * MAX_NAMES {
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(matches!(names.look(&format!("n{at}.example")), Look::Ask(_)));
        assert!(matches!(names.look("used.example"), Look::Use(_)), "{at}");
        assert!(names.locked().len() <= MAX_NAMES);
    }
    assert!(!names.locked().contains_key("old.example"));
    let newest = format!("n{}.example", 2 * MAX_NAMES - 1);
    assert!(names.locked().contains_key(&newest));
}
