//! DER and nothing that is like it (X.690 sections 8, 10 and 11), looked at to the last byte.
//!
//! The readers of certificates pass over much: lengths and numbers in longer forms, times with zones, what stands behind
//! the last field that they know. Two that read one certificate differently are a way past a rule, so that what is not
//! DER is no certificate here, whoever has signed it.

/// How deep elements may stand in one another.
const MAX_DEPTH: usize = 24;

const CONSTRUCTED: u8 = 0x20;
const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const NULL: u8 = 0x05;
const OID: u8 = 0x06;
const ENUMERATED: u8 = 0x0a;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// Tags of the universal class end here.
const UNIVERSAL: u8 = 0x40;

/// One element: its tag, as the one byte that it is written in, and its content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Element<'a> {
    tag: u8,
    content: &'a [u8],
}

/// The first element, and what comes behind it; `None` where its head is not DER.
fn first(bytes: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    // Tags of more than one byte occur nowhere in a certificate.
    if tag & 0x1f == 0x1f {
        return None;
    }
    let (short, rest) = rest.split_first()?;
    let (length, rest) = match short {
        0..=0x7f => (usize::from(*short), rest),
        0x81..=0x83 => {
            let (long, rest) = rest.split_at_checked(usize::from(short & 0x7f))?;
            let length = long.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            // The shortest form, and no other (X.690 section 10.1).
            let shortest = length >= 0x80 && long.first() != Some(&0);
            (shortest.then_some(length)?, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((Element { tag: *tag, content }, rest))
}

/// The elements that a content is made of, each or the end of it where it is not DER.
fn elements(mut content: &[u8]) -> impl Iterator<Item = Option<Element<'_>>> {
    std::iter::from_fn(move || {
        if content.is_empty() {
            return None;
        }
        let next = first(content);
        content = next.map_or(&[][..], |(_, rest)| rest);
        Some(next.map(|(element, _)| element))
    })
}

/// Whether these bytes are one element in DER, with all that is in it.
pub(super) fn is_der(bytes: &[u8]) -> bool {
    first(bytes).is_some_and(|(element, rest)| rest.is_empty() && is_sound(element, 0))
}

/// The place of the validity in a certificate of version 3 (RFC 5280 section 4.1).
const VALIDITY: usize = 4;

/// Whether the signed part of a certificate is DER, and its time has two ends.
pub(super) fn is_certificate(signed: &[u8]) -> bool {
    let ends = || {
        let (fields, _) = first(signed)?;
        let validity = elements(fields.content).nth(VALIDITY)??;
        let end = |element: Option<Element<'_>>| {
            element.is_some_and(|e| matches!(e.tag, UTC_TIME | GENERALIZED_TIME))
        };
        Some(elements(validity.content).count() == 2 && elements(validity.content).all(end))
    };
    is_der(signed) && ends() == Some(true)
}

fn is_sound(element: Element<'_>, depth: usize) -> bool {
    let Element { tag, content } = element;
    if tag & CONSTRUCTED != 0 {
        // Of the universal class only these two are made of elements in DER.
        let fit = tag >= UNIVERSAL || tag == SEQUENCE || tag == SET;
        return fit
            && depth < MAX_DEPTH
            && elements(content).all(|inner| inner.is_some_and(|inner| is_sound(inner, depth + 1)));
    }
    match tag {
        BOOLEAN => matches!(content, [0 | 0xff]),
        INTEGER | ENUMERATED => !matches!(content, [] | [0, 0..=0x7f, ..] | [0xff, 0x80..=0xff, ..]),
        BIT_STRING => is_bits(content),
        NULL => content.is_empty(),
        OID => {
            let arcs = content.split_inclusive(|byte| byte & 0x80 == 0);
            content.last().is_some_and(|byte| byte & 0x80 == 0)
                && arcs.into_iter().all(|arc| arc.first() != Some(&0x80))
        }
        UTC_TIME => is_time(content, 12),
        GENERALIZED_TIME => is_time(content, 14),
        _ => true,
    }
}

/// The bits that are not used are zero, and fewer than a byte (X.690 section 11.2.1).
fn is_bits(content: &[u8]) -> bool {
    match content {
        [0, ..] => true,
        [unused @ 1..=7, .., last] => last.trailing_zeros() >= u32::from(*unused),
        _ => false,
    }
}

/// So many digits and a `Z`: with seconds, without fractions of them, in UTC (RFC 5280 section 4.1.2.5).
fn is_time(content: &[u8], digits: usize) -> bool {
    content.split_last().is_some_and(|(zone, time)| {
        *zone == b'Z' && time.len() == digits && time.iter().all(u8::is_ascii_digit)
    })
}

/// Whether the value of a `nameConstraints` extension is what RFC 5280 section 4.2.1.10 says, wholly: permitted subtrees,
/// excluded ones, or both in this order, each of a name alone. A subtree with a `minimum` or `maximum` bounds something
/// that nobody looks at.
pub(super) fn is_constraints(value: &[u8]) -> bool {
    let Some((outer, [])) = first(value) else {
        return false;
    };
    let mut last = 0;
    let in_order = elements(outer.content).all(|list| {
        list.is_some_and(|list| {
            let fit = matches!(list.tag, 0xa0 | 0xa1) && list.tag > last && is_subtrees(list.content);
            last = list.tag;
            fit
        })
    });
    outer.tag == SEQUENCE && in_order && last != 0
}

fn is_subtrees(content: &[u8]) -> bool {
    let one = |subtree: Element<'_>| {
        subtree.tag == SEQUENCE && first(subtree.content).is_some_and(|(_, rest)| rest.is_empty())
    };
    !content.is_empty() && elements(content).all(|subtree| subtree.is_some_and(one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_is_in_the_one_form_that_der_has_for_it() {
        let sound: [&[u8]; 14] = [
            &[0x30, 0],
            &[0x30, 3, 1, 1, 0xff],
            &[0x02, 1, 0],
            &[0x02, 2, 0, 0x80],
            &[0x02, 2, 0xff, 0x7f],
            &[0x03, 2, 7, 0x80],
            &[0x03, 1, 0],
            &[0x05, 0],
            &[0x06, 3, 0x55, 0x1d, 0x0e],
            &[0x06, 3, 0x2a, 0x86, 0x48],
            b"\x17\x0d270115080000Z",
            b"\x18\x0f20500115080000Z",
            &[0xa0, 3, 2, 1, 2],
            &[0x86, 1, b'x'],
        ];
        for bytes in sound {
            assert!(is_der(bytes), "{bytes:02x?}");
        }
        let others: [(&[u8], &str); 26] = [
            (&[], "nothing"),
            (&[0x30, 0, 0], "bytes behind it"),
            (&[0x30, 0x80, 0, 0], "an indefinite length"),
            (
                &[0x30, 0x81, 3, 1, 1, 0xff],
                "a length in more bytes than it needs",
            ),
            (&[0x30, 0x82, 0, 0x80], "a length with a zero in front"),
            (&[0x30, 2, 1], "a length beyond the end"),
            (&[0x30, 3, 1, 1, 1], "a truth value of 1"),
            (&[0x30, 3, 1, 2, 0xff], "an element beyond its outer one"),
            (&[0x01, 2, 0xff, 0xff], "a truth value of two bytes"),
            (&[0x02, 0], "a number of no bytes"),
            (&[0x02, 2, 0, 0x7f], "a number with a zero in front"),
            (&[0x02, 2, 0xff, 0x80], "a negative number with a needless byte"),
            (&[0x03, 0], "bits without a count"),
            (&[0x03, 2, 7, 0x81], "unused bits that are set"),
            (&[0x03, 2, 8, 0], "eight unused bits"),
            (&[0x03, 1, 1], "unused bits of nothing"),
            (&[0x05, 1, 0], "a null with content"),
            (&[0x06, 0], "an empty identifier"),
            (&[0x06, 2, 0x55, 0x9d], "an identifier that does not end"),
            (&[0x06, 4, 0x55, 0x1d, 0x80, 0x0e], "an arc with a needless byte"),
            (b"\x17\x0b2701150800Z", "a time without seconds"),
            (b"\x17\x112701150800000+0100", "a time of a zone"),
            (b"\x18\x1120500115080000.5Z", "a fraction of a second"),
            (b"\x18\x0e20500115080000", "a local time"),
            (&[0x24, 3, 4, 1, 0], "a string in pieces"),
            (&[0x1f, 0x81, 0x01, 0], "a tag of several bytes"),
        ];
        for (bytes, what) in others {
            assert!(!is_der(bytes), "{what}");
        }
        let mut deep = vec![0x05, 0];
        for _ in 0..MAX_DEPTH {
            deep = [&[0x30, u8::try_from(deep.len()).unwrap()][..], &deep].concat();
        }
        assert!(is_der(&deep));
        deep = [&[0x30, u8::try_from(deep.len()).unwrap()][..], &deep].concat();
        assert!(!is_der(&deep), "deeper than {MAX_DEPTH}");
    }

    #[test]
    fn name_constraints_are_read_to_the_end_or_not_at_all() {
        let name = [0x86, 2, b't', b'd'];
        let wrap =
            |tag: u8, content: &[u8]| [&[tag, u8::try_from(content.len()).unwrap()][..], content].concat();
        let subtree = wrap(0x30, &name);
        let (permitted, excluded) = (wrap(0xa0, &subtree), wrap(0xa1, &subtree));
        let whole = |parts: &[&[u8]]| is_constraints(&wrap(0x30, &parts.concat()));
        assert!(whole(&[&permitted]) && whole(&[&excluded]) && whole(&[&permitted, &excluded]));
        assert!(!whole(&[]), "no list");
        assert!(
            !whole(&[&excluded, &permitted]),
            "the other order: the second would be passed over"
        );
        assert!(!whole(&[&excluded, &excluded]), "a list twice");
        assert!(
            !whole(&[&permitted, &excluded, &wrap(0xa2, &subtree)]),
            "an unknown list"
        );
        assert!(!whole(&[&wrap(0xa0, &[])]), "an empty list");
        assert!(
            !whole(&[&wrap(0xa0, &wrap(0x31, &name))]),
            "a subtree that is a set"
        );
        let deep = wrap(0x30, &[&name[..], &[0x80, 1, 1]].concat());
        assert!(!whole(&[&wrap(0xa0, &deep)]), "a minimum");
        assert!(
            !whole(&[&permitted, &wrap(0xa1, &[&subtree[..], &[0]].concat())]),
            "bytes behind a subtree"
        );
        assert!(
            !is_constraints(&[&wrap(0x30, &permitted)[..], &[0]].concat()),
            "bytes behind the value"
        );
    }
}
