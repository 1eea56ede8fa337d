use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use proptest::prelude::*;

use super::*;
use crate::Code;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn shown(block: &Block) -> Vec<String> {
    let show = |(name, value): &Field| match name {
        Name::Field(name) => format!("{name}: {}", value.to_str().unwrap()),
        other => format!("{other:?}: {}", value.to_str().unwrap()),
    };
    block.fields.iter().map(show).collect()
}

fn decoded(decoder: &mut Decoder, hex: &str) -> Vec<String> {
    shown(&decoder.decode(&bytes(hex), 60_000, 100).unwrap())
}

/// RFC 7541, C.3 and C.4: the same requests, without and with the Huffman code.
#[test]
fn the_requests_of_the_rfc_are_decoded() {
    let plain = [
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ];
    let coded = [
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ];
    for blocks in [plain, coded] {
        let mut decoder = Decoder::default();
        let first = [
            "Method: GET",
            "Scheme: http",
            "Path: /",
            "Authority: www.example.com",
        ];
        assert_eq!(decoded(&mut decoder, blocks[0]), first);
        let second = decoded(&mut decoder, blocks[1]);
        assert_eq!(second[..4], first);
        assert_eq!(second[4], "cache-control: no-cache");
        let third = decoded(&mut decoder, blocks[2]);
        assert_eq!(
            third,
            [
                "Method: GET",
                "Scheme: https",
                "Path: /index.html",
                "Authority: www.example.com",
                "custom-key: custom-value"
            ]
        );
    }
}

#[test]
fn a_table_that_is_full_forgets_the_oldest() {
    let mut decoder = Decoder::default();
    // A table of 64 bytes holds one field of this size.
    let block = [
        &bytes("3f21")[..],
        b"\x40\x01a\x01b",
        b"\x40\x01c\x01d",
        &bytes("be")[..],
    ]
    .concat();
    assert_eq!(
        shown(&decoder.decode(&block, 1000, 10).unwrap()),
        ["a: b", "c: d", "c: d"]
    );
    let gone = decoder.decode(&bytes("bf"), 1000, 10).unwrap_err();
    assert_eq!(gone.code, Code::COMPRESSION_ERROR);
}

#[test]
fn what_cannot_be_decoded_ends_the_connection() {
    for hex in [
        "80",                // Index 0.
        "ff ff ff ff ff ff", // An integer without end.
        "41",                // Cut.
        "4105 6162",         // A string that is cut.
        "4083 ffff ff 00",   // The end of a string within one.
        "4081 00 00",        // Padding that is not ones.
        "8220",              // A change of size after a field.
        "3fe2 1f",           // A table of 4097 bytes.
        "20 20 20",          // A change of size too many.
    ] {
        let error = Decoder::default().decode(&bytes(hex), 1000, 10).unwrap_err();
        assert_eq!(error.code, Code::COMPRESSION_ERROR, "{hex}");
    }
}

#[test]
fn what_is_malformed_is_followed_all_the_same() {
    let mut decoder = Decoder::default();
    for (name, value) in [
        ("Upper", "x"),
        ("with space", "x"),
        ("", "x"),
        ("a", "x\r\ny"),
        ("a", "\0"),
    ] {
        let mut block = vec![0x40];
        put_string(&mut block, name.as_bytes());
        put_string(&mut block, value.as_bytes());
        block.extend(b"\x00\x01b\x01c\xbe");
        let fields = decoder.decode(&block, 1000, 10).unwrap().fields;
        assert_eq!(fields[0].0, Name::Malformed, "{name} {value:?}");
        assert_eq!(fields[2].0, Name::Malformed, "{name} {value:?}");
        assert_eq!(fields[1].1, "c");
    }
}

/// Few bytes that stand for many: nothing beyond the limit is held.
#[test]
fn a_bomb_is_not_held() {
    let mut decoder = Decoder::default();
    let mut block = b"\x40\x01a".to_vec();
    put_string(&mut block, &[b'x'; 3000]);
    block.extend([0xbe; 10_000]);
    let bomb = decoder.decode(&block, 60_000, 100_000).unwrap();
    assert!(bomb.too_long && bomb.fields.len() < 20, "{}", bomb.fields.len());
    let many = decoder.decode(&[0x82; 1000], 60_000, 100).unwrap();
    assert!(many.too_many && many.fields.len() == 100);
    // What comes after is decoded as if nothing had been.
    assert_eq!(
        shown(&decoder.decode(&[0x82], 1000, 10).unwrap()),
        ["Method: GET"]
    );
}

fn encoded(encoder: &mut Encoder, fields: &[(HeaderName, HeaderValue)]) -> Vec<u8> {
    let mut out = Vec::new();
    encoder.begin(&mut out);
    for (name, value) in fields {
        encoder.field(&mut out, name, value);
    }
    out
}

fn field(name: &'static str, value: &str) -> (HeaderName, HeaderValue) {
    (
        HeaderName::from_static(name),
        HeaderValue::from_str(value).unwrap(),
    )
}

#[test]
fn what_comes_again_goes_into_the_table_and_what_differs_does_not() {
    let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
    let mut lengths = Vec::new();
    for id in 0..4 {
        let fields = [
            field("user-agent", "the same each time"),
            field("x-request-id", &format!("never the same {id}")),
            field("authorization", "Bearer secret"),
        ];
        let block = encoded(&mut encoder, &fields);
        lengths.push(block.len());
        // RFC 7541, 7.1.3: secrets are marked as such.
        assert!(block.windows(13).any(|part| part == b"Bearer secret"));
        let decoded = decoder.decode(&block, 60_000, 100).unwrap();
        let wanted: Vec<_> = fields.into_iter().map(|(n, v)| (Name::Field(n), v)).collect();
        assert_eq!(decoded.fields, wanted);
    }
    assert!(lengths[3] + 30 < lengths[0], "{lengths:?}");
    assert_eq!(lengths[2], lengths[3]);
}

#[test]
fn a_smaller_table_is_told_of_and_kept() {
    let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
    let fields = [field("user-agent", "x"), field("server", "y")];
    for limit in [4096, 0, 100, 40, 0, 4096] {
        encoder.limit(limit);
        for _ in 0..4 {
            let block = encoded(&mut encoder, &fields);
            assert_eq!(decoder.decode(&block, 1000, 10).unwrap().fields.len(), 2);
        }
    }
    encoder.limit(10);
    encoder.limit(4096);
    let block = encoded(&mut encoder, &fields);
    assert!(block.starts_with(&bytes("2a 3fe1 1f")), "{block:x?}");
}

/// A reference that is slow and obvious: bit by bit, through all codes.
fn slowly(bytes: &[u8]) -> Option<Vec<u8>> {
    let bits: Vec<bool> = bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1))
        .collect();
    let codes = huffman::codes();
    let (mut out, mut start) = (Vec::new(), 0);
    'next: while start < bits.len() {
        for (symbol, (code, length)) in codes.iter().enumerate() {
            let Some(part) = bits.get(start..start + length) else {
                continue;
            };
            let value = part.iter().fold(0_u32, |value, bit| value << 1 | u32::from(*bit));
            if value == *code {
                out.push(u8::try_from(symbol).ok()?);
                start += length;
                continue 'next;
            }
        }
        let rest = &bits[start..];
        return (rest.len() < 8 && rest.iter().all(|bit| *bit)).then_some(out);
    }
    Some(out)
}

#[test]
fn codes_are_those_of_the_rfc() {
    let codes = huffman::codes();
    for (symbol, code, length) in [
        (b'0', 0x0, 5),
        (b'a', 0x3, 5),
        (b'z', 0x7b, 7),
        (b' ', 0x14, 6),
        (b'&', 0xf8, 8),
        (b'!', 0x3f8, 10),
        (b'\\', 0x7fff0, 19),
        (0, 0x1ff8, 13),
        (10, 0x3fff_fffc, 30),
        (255, 0x3ff_ffee, 26),
    ] {
        assert_eq!(codes[usize::from(symbol)], (code, length), "{symbol}");
    }
    assert_eq!(codes[256], (0x3fff_ffff, 30));
}

proptest! {
    #[test]
    fn huffman_is_read_as_bit_by_bit(bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0xff), 0x80..=0xff_u8], 0..24)) {
        let mut out = Vec::new();
        let fast = huffman::decode(&bytes, &mut out).ok().map(|()| out);
        prop_assert_eq!(fast, slowly(&bytes));
    }

    /// Whatever is written is read as it was, block after block.
    #[test]
    fn what_is_written_is_read(
        messages in prop::collection::vec(prop::collection::vec((0..12_usize, "[ -~]{0,6}"), 0..12), 0..30),
        limits in prop::collection::vec(0..300_u32, 30),
    ) {
        const NAMES: [&str; 12] = ["a", "b", "host2", "accept", "cookie", "x-long-name-of-mine", "etag", "via", "date", "server", "x-1", "x-2"];
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        for (message, limit) in messages.iter().zip(limits) {
            encoder.limit(limit);
            let fields: Vec<_> = message.iter().map(|(at, value)| field(NAMES[*at], value)).collect();
            let mut block = Vec::new();
            encoder.begin(&mut block);
            encoder.method(&mut block, &Method::GET);
            encoder.status(&mut block, StatusCode::IM_A_TEAPOT);
            encoder.path(&mut block, b"/a/path");
            encoder.authority(&mut block, b"authority");
            for (name, value) in &fields {
                encoder.field(&mut block, name, value);
            }
            let read = decoder.decode(&block, 60_000, 100).unwrap();
            let mut wanted = vec![
                (Name::Method, HeaderValue::from_static("GET")),
                (Name::Status, HeaderValue::from_static("418")),
                (Name::Path, HeaderValue::from_static("/a/path")),
                (Name::Authority, HeaderValue::from_static("authority")),
            ];
            for (name, value) in fields {
                wanted.push((Name::Field(name), HeaderValue::from_bytes(value.as_bytes().trim_ascii()).unwrap()));
            }
            prop_assert_eq!(read.fields, wanted);
        }
    }

    #[test]
    fn decoding_is_total(block in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut decoder = Decoder::default();
        for _ in 0..2 {
            if let Ok(read) = decoder.decode(&block, 500, 8) {
                let size: usize = read.fields.iter().map(|(name, value)| name.length() + value.len() + OVERHEAD).sum();
                prop_assert!(size <= 500 && read.fields.len() <= 8);
            }
        }
    }
}

#[test]
fn maps_are_written_in_their_order() {
    let mut map = HeaderMap::new();
    map.append("a", HeaderValue::from_static("1"));
    map.append("a", HeaderValue::from_static("2"));
    let (mut encoder, mut out) = (Encoder::default(), Vec::new());
    for (name, value) in &map {
        encoder.field(&mut out, name, value);
    }
    assert_eq!(
        decoded(
            &mut Decoder::default(),
            &out.iter().map(|b| format!("{b:02x}")).collect::<String>()
        ),
        ["a: 1", "a: 2"]
    );
}
