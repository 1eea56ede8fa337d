//! Fields to header blocks.

use std::collections::VecDeque;

use http::{HeaderName, HeaderValue, Method, StatusCode, header};

use super::{OVERHEAD, put_integer, put_string, table};
use crate::limits::{HEADER_TABLE, MAX_INDEXED};

/// Bits before an index or a string that say what it is (RFC 7541, 6).
const INDEXED: (u8, u32) = (0x80, 7);
const INSERTED: (u8, u32) = (0x40, 6);
const NOT_INDEXED: (u8, u32) = (0, 4);
const NEVER_INDEXED: (u8, u32) = (0x10, 4);

const AUTHORITY: u8 = 1;
const PATH: u8 = 4;

/// How many names are remembered.
const SLOTS: usize = 64;
/// How many places a name may have.
const PLACES: usize = 4;

/// One direction's table. A value goes into it when it comes a second time in a row, and what holds secrets never: so what
/// differs with each message costs its reader nothing.
#[derive(Debug)]
pub struct Encoder {
    /// By what is nearly a hash of their name.
    slots: Vec<Slot>,
    authority: Slot,
    path: Slot,
    /// The newest first.
    entries: VecDeque<Entry>,
    /// How many there ever were. An entry's number never changes; what the other side calls it by does.
    inserted: u64,
    size: usize,
    capacity: usize,
    /// What the other side has to be told of the capacity: the least that it was, and what it is.
    update: Option<usize>,
}

#[derive(Debug)]
struct Entry {
    value: Box<[u8]>,
    size: usize,
}

#[derive(Debug, Default)]
struct Slot {
    name: Option<HeaderName>,
    /// Of the static table; 0 for none.
    number: u8,
    sensitive: bool,
    /// The newest entry of this name, by its number; 0 for none.
    entry: u64,
    /// A sum over the last value that was not in the table; 0 for none.
    missed: u64,
}

/// How a name is written.
enum As {
    Number(usize),
    Text,
}

impl Default for Encoder {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            authority: Slot::of(AUTHORITY),
            path: Slot::of(PATH),
            entries: VecDeque::new(),
            inserted: 0,
            size: 0,
            capacity: HEADER_TABLE,
            update: None,
        }
    }
}

impl Encoder {
    /// The other side's limit for the table, which is kept below our own.
    pub fn limit(&mut self, size: u32) {
        let size = usize::try_from(size).unwrap_or(usize::MAX).min(HEADER_TABLE);
        if size == self.capacity {
            return;
        }
        self.update = Some(self.update.unwrap_or(self.capacity).min(size));
        self.capacity = size;
        self.evict(0);
    }

    /// To be called at the beginning of each block.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        if let Some(least) = self.update.take() {
            if least < self.capacity {
                put_integer(out, 0x20, 5, least);
            }
            put_integer(out, 0x20, 5, self.capacity);
        }
    }

    /// Writes `:method`.
    pub fn method(&mut self, out: &mut Vec<u8>, method: &Method) {
        match *method {
            Method::GET => out.push(0x82),
            Method::POST => out.push(0x83),
            _ => {
                put_integer(out, NOT_INDEXED.0, NOT_INDEXED.1, 2);
                put_string(out, method.as_str().as_bytes());
            }
        }
    }

    /// Writes `:scheme`, as `http`.
    pub fn scheme(&mut self, out: &mut Vec<u8>) {
        out.push(0x86);
    }

    /// Writes `:authority`.
    pub fn authority(&mut self, out: &mut Vec<u8>, authority: &[u8]) {
        let mut slot = std::mem::take(&mut self.authority);
        self.put(out, &mut slot, b"", authority);
        self.authority = slot;
    }

    /// Writes `:path`.
    pub fn path(&mut self, out: &mut Vec<u8>, path: &[u8]) {
        if path == b"/" {
            return out.push(0x84);
        }
        let mut slot = std::mem::take(&mut self.path);
        self.put(out, &mut slot, b"", path);
        self.path = slot;
    }

    /// Writes `:status`.
    pub fn status(&mut self, out: &mut Vec<u8>, status: StatusCode) {
        let index = match status.as_u16() {
            200 => 8,
            204 => 9,
            206 => 10,
            304 => 11,
            400 => 12,
            404 => 13,
            500 => 14,
            _ => {
                put_integer(out, NOT_INDEXED.0, NOT_INDEXED.1, 8);
                return put_string(out, status.as_str().as_bytes());
            }
        };
        out.push(0x80 | index);
    }

    /// Writes a field.
    pub fn field(&mut self, out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
        let text = name.as_str().as_bytes();
        let at = self.place(name, text);
        let mut slot = match self.slots.get_mut(at) {
            Some(slot) if slot.name.as_ref() == Some(name) => std::mem::take(slot),
            _ => Slot::named(name),
        };
        // RFC 9113, 8.2.1: no value begins or ends with white space.
        let value_text = value.as_bytes().trim_ascii();
        if value.is_sensitive() || slot.sensitive {
            self.literal(out, &slot, NEVER_INDEXED, text, value_text);
        } else {
            self.put(out, &mut slot, text, value_text);
        }
        if let Some(place) = self.slots.get_mut(at) {
            *place = slot;
        }
    }

    /// Where a name is remembered, or is to be: names that meet there only forget each other.
    fn place(&mut self, name: &HeaderName, text: &[u8]) -> usize {
        if self.slots.is_empty() {
            self.slots.resize_with(SLOTS, Slot::default);
        }
        let first = place(text);
        let places = (0..PLACES).map(|step| (first + step) % SLOTS);
        let found = places.clone().find(|at| {
            let slot = self.slots.get(*at);
            slot.is_some_and(|slot| slot.name.as_ref() == Some(name))
        });
        let empty = || {
            let mut places = places.clone();
            places.find(|at| self.slots.get(*at).is_some_and(|slot| slot.name.is_none()))
        };
        found.or_else(empty).unwrap_or(first)
    }

    fn put(&mut self, out: &mut Vec<u8>, slot: &mut Slot, name: &[u8], value: &[u8]) {
        let own = self.index(slot.entry);
        if let Some((index, entry)) = own
            && *entry.value == *value
        {
            return put_integer(out, INDEXED.0, INDEXED.1, index);
        }
        let sum = sum(value);
        // A name that is in no table goes there with whatever value it has when it comes again.
        let nameless = slot.number == 0 && own.is_none() && slot.missed != 0;
        if (slot.missed == sum || nameless) && value.len() <= MAX_INDEXED {
            self.literal(out, slot, INSERTED, name, value);
            let name_length = match slot.number {
                AUTHORITY => 10,
                PATH => 5,
                _ => name.len(),
            };
            slot.entry = self.insert(value, name_length + value.len() + OVERHEAD);
        } else {
            self.literal(out, slot, NOT_INDEXED, name, value);
        }
        slot.missed = sum;
    }

    fn literal(&self, out: &mut Vec<u8>, slot: &Slot, how: (u8, u32), name: &[u8], value: &[u8]) {
        let name_as = match (slot.number, self.index(slot.entry)) {
            (0, None) => As::Text,
            (0, Some((index, _))) => As::Number(index),
            (number, _) => As::Number(usize::from(number)),
        };
        match name_as {
            As::Number(index) => put_integer(out, how.0, how.1, index),
            As::Text => {
                out.push(how.0);
                put_string(out, name);
            }
        }
        put_string(out, value);
    }

    /// What the other side calls an entry by, where it is still there.
    fn index(&self, entry: u64) -> Option<(usize, &Entry)> {
        let at = usize::try_from(self.inserted.checked_sub(entry)?).ok()?;
        let kept = self.entries.get(at).filter(|_| entry > 0)?;
        Some((table::STATIC + 1 + at, kept))
    }

    /// The entry's number; 0 where it is larger than the table, which is then empty.
    fn insert(&mut self, value: &[u8], size: usize) -> u64 {
        self.evict(size);
        if size > self.capacity {
            return 0;
        }
        self.size += size;
        self.entries.push_front(Entry {
            value: value.into(),
            size,
        });
        self.inserted += 1;
        self.inserted
    }

    fn evict(&mut self, size: usize) {
        while self.size + size > self.capacity {
            let Some(oldest) = self.entries.pop_back() else {
                return;
            };
            self.size -= oldest.size;
        }
    }
}

impl Slot {
    fn of(number: u8) -> Self {
        Self {
            number,
            ..Self::default()
        }
    }

    fn named(name: &HeaderName) -> Self {
        Self {
            name: Some(name.clone()),
            number: table::number(name),
            sensitive: [
                header::AUTHORIZATION,
                header::PROXY_AUTHORIZATION,
                header::COOKIE,
                header::SET_COOKIE,
            ]
            .contains(name),
            ..Self::default()
        }
    }
}

fn place(name: &[u8]) -> usize {
    let byte = |at: usize| name.get(at).copied().map_or(0, usize::from);
    let length = name.len();
    let mixed = length
        .wrapping_mul(7)
        .wrapping_add(byte(0).wrapping_mul(31))
        .wrapping_add(byte(length / 2).wrapping_mul(5))
        .wrapping_add(byte(length.saturating_sub(1)).wrapping_mul(17));
    mixed % SLOTS
}

/// A sum over a value, never 0: values with the same are compared nowhere, since all that it decides is what is inserted.
fn sum(value: &[u8]) -> u64 {
    let (words, rest) = value.as_chunks::<8>();
    let mut sum = u64::try_from(value.len()).unwrap_or_default();
    for word in words {
        sum = (sum.rotate_left(5) ^ u64::from_le_bytes(*word)).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
    for byte in rest {
        sum = (sum.rotate_left(5) ^ u64::from(*byte)).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
    sum | 1
}
