use proptest::prelude::*;

use super::*;

#[test]
fn what_is_written_is_read_back() {
    let mut message = Message::new(16, REQUEST | ACK);
    message.raw(&[1, 2, 3, 4]).text(3, "eth0").nest(18, |m| {
        m.text(1, "veth").u32(2, 7);
    });
    let bytes = message.finish(42).unwrap();
    assert_eq!(bytes.len() % 4, 0);
    let all: Vec<_> = messages(&bytes).collect();
    assert_eq!(all.len(), 1);
    assert_eq!((all[0].kind, all[0].sequence), (16, 42));
    let attrs = &all[0].body[4..];
    assert_eq!(text_of(attribute(attrs, 3).unwrap()), Some("eth0"));
    let nested = attribute(attrs, 18).unwrap();
    assert_eq!(u32_at(attribute(nested, 2).unwrap(), 0), Some(7));
}

#[test]
fn an_attribute_longer_than_its_length_field_is_refused() {
    let mut message = Message::new(16, 0);
    message.attr(1, &vec![0; 70_000]);
    assert!(message.finish(1).is_err());
}

#[test]
fn an_error_carries_its_explanation() {
    let mut message = Message::new(NLMSG_ERROR, NLM_F_CAPPED | NLM_F_ACK_TLVS);
    message.raw(&(-libc::EEXIST).to_ne_bytes());
    message.raw(&[0; HEADER]);
    message.text(NLMSGERR_ATTR_MSG, "rule exists");
    let bytes = message.finish(1).unwrap();
    let received = messages(&bytes).next().unwrap();
    assert_eq!(
        verdict(&received),
        Some(Err((Errno::EEXIST, "rule exists".to_owned())))
    );
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for message in messages(&bytes) {
            let _ = verdict(&message);
            for (_, value) in attributes(message.body) {
                let _ = text_of(value);
            }
        }
        for (_, value) in attributes(&bytes) {
            prop_assert!(value.len() < bytes.len());
        }
    }

    #[test]
    fn any_error_body_is_read_without_panic(
        flags in any::<u16>(),
        body in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let _ = verdict(&Received { kind: NLMSG_ERROR, flags, sequence: 0, body: &body });
    }
}
