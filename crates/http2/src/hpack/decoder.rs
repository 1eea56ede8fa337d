//! Header blocks to fields.

use std::collections::VecDeque;

use bytes::Bytes;
use http::HeaderValue;

use super::{Name, OVERHEAD, huffman, table};
use crate::code::{Code, Violation};
use crate::limits::HEADER_TABLE;

/// A field of a block that was decoded.
pub type Field = (Name, HeaderValue);

/// What a block came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// The fields, in their order; not all where there are more than wanted.
    pub fields: Vec<Field>,
    /// Whether they are more, in bytes, than wanted (RFC 9113, 6.5.2: names, values, and 32 for each).
    pub too_long: bool,
    /// Whether they are more, in number, than wanted.
    pub too_many: bool,
}

/// One direction's table, and what it takes to decode with it.
#[derive(Debug)]
pub struct Decoder {
    entries: VecDeque<Entry>,
    size: usize,
    /// What the other side has chosen.
    capacity: usize,
    /// Room for values before they have a place of their own.
    values: Vec<u8>,
    /// What was seen of the block that is decoded.
    seen: Vec<(Name, Value)>,
}

#[derive(Debug)]
struct Entry {
    name: Name,
    value: HeaderValue,
    size: usize,
}

/// A value that was kept, or a place among those that were not.
#[derive(Debug)]
enum Value {
    Kept(HeaderValue),
    At(usize, usize),
}

/// How much of a block is wanted.
struct Room {
    bytes: usize,
    fields: usize,
    too_long: bool,
    too_many: bool,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            size: 0,
            capacity: HEADER_TABLE,
            values: Vec::new(),
            seen: Vec::new(),
        }
    }
}

impl Decoder {
    /// Decodes a whole block. Beyond `bytes` and `fields` nothing is kept, but the block is followed to its end, without which
    /// none after it could be decoded.
    ///
    /// # Errors
    /// It cannot be: then nothing after it can.
    pub fn decode(&mut self, block: &[u8], bytes: usize, fields: usize) -> Result<Block, Violation> {
        self.values.clear();
        self.seen.clear();
        let mut room = Room {
            bytes,
            fields,
            too_long: false,
            too_many: false,
        };
        let mut reader = Reader(block);
        let mut updates = 0;
        while let Some(first) = reader.0.first().copied() {
            if first & 0xe0 == 0x20 {
                // RFC 7541, 4.2: at the beginning of a block, and twice at most.
                updates += 1;
                if updates > 2 || !self.seen.is_empty() || room.too_long || room.too_many {
                    return Err(broken("a table's size changes within a block"));
                }
                let size = reader.integer(5)?;
                if size > HEADER_TABLE {
                    return Err(broken("a table is to be larger than it may be"));
                }
                self.capacity = size;
                self.evict(0);
            } else {
                updates = 2;
                self.field(&mut reader, first, &mut room)?;
            }
        }
        Ok(self.built(&room))
    }

    fn field(&mut self, reader: &mut Reader<'_>, first: u8, room: &mut Room) -> Result<(), Violation> {
        if first & 0x80 != 0 {
            let index = reader.integer(7)?;
            let (name, value) = self.entry(index)?;
            let (name, value) = (name.clone(), value.clone());
            let size = name.length() + value.len() + OVERHEAD;
            self.seen(name, Value::Kept(value), size, room);
            return Ok(());
        }
        let indexed = first & 0xc0 == 0x40;
        let index = reader.integer(if indexed { 6 } else { 4 })?;
        let start = self.values.len();
        let (name, name_length) = match index {
            0 => {
                let name = reader.string(&mut self.values)?;
                let text = match name {
                    Text::Plain(text) => text,
                    Text::Decoded => self.values.get(start..).unwrap_or_default(),
                };
                let read = (Name::read(text), text.len());
                self.values.truncate(start);
                read
            }
            _ => {
                let name = self.entry(index)?.0.clone();
                let length = name.length();
                (name, length)
            }
        };
        if let Text::Plain(text) = reader.string(&mut self.values)? {
            self.values.extend_from_slice(text);
        }
        let end = self.values.len();
        let size = name_length + (end - start) + OVERHEAD;
        if indexed {
            let value = HeaderValue::from_bytes(self.values.get(start..end).unwrap_or_default());
            self.values.truncate(start);
            let (name, value) = match value {
                Ok(value) => (name, value),
                Err(_) => (Name::Malformed, HeaderValue::from_static("")),
            };
            self.insert(name.clone(), value.clone(), size);
            self.seen(name, Value::Kept(value), size, room);
        } else {
            self.seen(name, Value::At(start, end), size, room);
        }
        Ok(())
    }

    /// Takes note of a field, where there is room.
    fn seen(&mut self, name: Name, value: Value, size: usize, room: &mut Room) {
        match room.bytes.checked_sub(size) {
            Some(left) => room.bytes = left,
            None => {
                room.bytes = 0;
                room.too_long = true;
            }
        }
        if self.seen.len() >= room.fields {
            room.too_many = true;
        }
        if room.too_long || room.too_many {
            if let Value::At(start, _) = value {
                self.values.truncate(start);
            }
            return;
        }
        self.seen.push((name, value));
    }

    /// Gives the values a place: one for all that are not in the table.
    fn built(&mut self, room: &Room) -> Block {
        let values = Bytes::copy_from_slice(&self.values);
        let fields = self.seen.drain(..).map(|(name, value)| match value {
            Value::Kept(value) => (name, value),
            Value::At(start, end) => match HeaderValue::from_maybe_shared(values.slice(start..end)) {
                Ok(value) => (name, value),
                Err(_) => (Name::Malformed, HeaderValue::from_static("")),
            },
        });
        let fields = fields.collect();
        // One long block leaves nothing behind.
        self.values.shrink_to(HEADER_TABLE);
        Block {
            fields,
            too_long: room.too_long,
            too_many: room.too_many,
        }
    }

    fn entry(&self, index: usize) -> Result<(&Name, &HeaderValue), Violation> {
        if let Some((name, value)) = table::entry(index) {
            return Ok((name, value));
        }
        let own = index.checked_sub(table::STATIC + 1);
        let entry = own.and_then(|at| self.entries.get(at));
        let entry = entry.ok_or_else(|| broken("a field is not in the table"))?;
        Ok((&entry.name, &entry.value))
    }

    fn insert(&mut self, name: Name, value: HeaderValue, size: usize) {
        self.evict(size);
        if size <= self.capacity {
            self.size += size;
            self.entries.push_front(Entry { name, value, size });
        }
    }

    /// Makes room for `size` bytes.
    fn evict(&mut self, size: usize) {
        while self.size + size > self.capacity {
            let Some(oldest) = self.entries.pop_back() else {
                return;
            };
            self.size -= oldest.size;
        }
    }
}

/// What is left of a block.
struct Reader<'a>(&'a [u8]);

enum Text<'a> {
    Plain(&'a [u8]),
    /// At the end of the buffer.
    Decoded,
}

impl<'a> Reader<'a> {
    /// An integer of at most 28 bits besides its prefix (RFC 7541, 5.1).
    fn integer(&mut self, bits: u32) -> Result<usize, Violation> {
        let most = (1_usize << bits) - 1;
        let mut value = usize::from(self.byte()?) & most;
        if value < most {
            return Ok(value);
        }
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            value += usize::from(byte & 127) << shift;
            if byte & 128 == 0 {
                return Ok(value);
            }
        }
        Err(broken("an integer is too long"))
    }

    fn string(&mut self, values: &mut Vec<u8>) -> Result<Text<'a>, Violation> {
        let coded = self.0.first().is_some_and(|first| first & 128 != 0);
        let length = self.integer(7)?;
        let (text, rest) = self.0.split_at_checked(length).ok_or_else(cut)?;
        self.0 = rest;
        if !coded {
            return Ok(Text::Plain(text));
        }
        huffman::decode(text, values).map_err(|_| broken("a string is not of the Huffman code"))?;
        Ok(Text::Decoded)
    }

    fn byte(&mut self) -> Result<u8, Violation> {
        let (first, rest) = self.0.split_first().ok_or_else(cut)?;
        self.0 = rest;
        Ok(*first)
    }
}

fn cut() -> Violation {
    broken("a header block ends within a field")
}

fn broken(why: &'static str) -> Violation {
    Violation::new(Code::COMPRESSION_ERROR, why)
}
