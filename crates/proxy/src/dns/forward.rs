//! Asking somebody else.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::answer::MAX_UDP;

/// How long all servers together may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long one server may take before the next is asked.
const SERVER_TIMEOUT: Duration = Duration::from_secs(2);

/// How many datagrams are looked at for one answer; more are a flood of forgeries.
const MAX_DATAGRAMS: usize = 32;

/// Asks one server after the other; `None` where none has answered in time.
pub(super) async fn ask(servers: &[SocketAddr], question: &Query) -> Option<Message> {
    let all = async {
        for server in servers {
            match tokio::time::timeout(SERVER_TIMEOUT, ask_one(*server, question)).await {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) => tracing::debug!(%server, %error, "a DNS server did not answer"),
                Err(_) => tracing::debug!(%server, "a DNS server did not answer in time"),
            }
        }
        None
    };
    tokio::time::timeout(TIMEOUT, all).await.ok().flatten()
}

async fn ask_one(server: SocketAddr, question: &Query) -> std::io::Result<Message> {
    let id = random_id()?;
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(question.clone());
    let mut edns = Edns::new();
    edns.set_max_payload(MAX_UDP);
    message.edns = Some(edns);
    let bytes = message.to_vec().map_err(std::io::Error::other)?;

    let any = match server {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    // A socket, and so a port, of its own for each question; connected, so that the kernel drops what others send.
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(&bytes).await?;
    let mut buffer = vec![0; 4096];
    for _ in 0..MAX_DATAGRAMS {
        let length = socket.recv(&mut buffer).await?;
        let received = buffer.get(..length).unwrap_or_default();
        if let Some(answer) = accepted(received, id, question) {
            if answer.metadata.truncation {
                return over_tcp(server, &bytes, id, question).await;
            }
            return Ok(answer);
        }
    }
    Err(std::io::Error::other("too many answers to other questions"))
}

async fn over_tcp(server: SocketAddr, query: &[u8], id: u16, question: &Query) -> std::io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), query].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    accepted(&answer, id, question).ok_or_else(|| std::io::Error::other("an answer to another question"))
}

/// The answer, if it is one to this very question.
fn accepted(bytes: &[u8], id: u16, question: &Query) -> Option<Message> {
    let message = Message::from_vec(bytes).ok()?;
    let is_answer = message.metadata.message_type == MessageType::Response
        && message.metadata.id == id
        && message.metadata.op_code == OpCode::Query;
    let [asked] = message.queries.as_slice() else {
        return None;
    };
    let same = asked.name() == question.name()
        && asked.query_type() == question.query_type()
        && asked.query_class() == question.query_class();
    (is_answer && same).then_some(message)
}

fn random_id() -> std::io::Result<u16> {
    let mut bytes = [0; 2];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| std::io::Error::other("the system gives no random numbers"))?;
    Ok(u16::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::{Name, RecordType};

    use super::*;

    fn question() -> Query {
        Query::query(Name::from_ascii("example.com.").unwrap(), RecordType::A)
    }

    fn response(id: u16, question: Query) -> Message {
        let mut message = Message::response(id, OpCode::Query);
        message.add_query(question);
        message
    }

    #[test]
    fn only_an_answer_to_the_very_question_is_taken() {
        let check = |message: &Message| accepted(&message.to_vec().unwrap(), 7, &question()).is_some();
        assert!(check(&response(7, question())));
        assert!(!check(&response(8, question())));
        let other = Query::query(Name::from_ascii("example.org.").unwrap(), RecordType::A);
        assert!(!check(&response(7, other)));
        let other = Query::query(question().name().clone(), RecordType::AAAA);
        assert!(!check(&response(7, other)));
        let mut not_an_answer = response(7, question());
        not_an_answer.metadata.message_type = MessageType::Query;
        assert!(!check(&not_an_answer));
        assert!(!check(&Message::response(7, OpCode::Query)));
    }

    #[tokio::test]
    async fn forged_answers_are_passed_over_and_a_dead_server_too() {
        let dead = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let dead_at = dead.local_addr().unwrap();
        drop(dead);
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = server.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            let (length, from) = server.recv_from(&mut buffer).await.unwrap();
            let query = Message::from_vec(&buffer[..length]).unwrap();
            for id in [query.metadata.id ^ 1, query.metadata.id] {
                let mut answer = response(id, query.queries[0].clone());
                answer.metadata.authentic_data = id == query.metadata.id;
                server.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        });
        let answer = ask(&[dead_at, at], &question()).await.unwrap();
        assert!(answer.metadata.authentic_data);
    }
}
