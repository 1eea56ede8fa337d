//! The Huffman code (RFC 7541, appendix B). It is canonical: the lengths say all.
#![expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::as_conversions,
    reason = "tables made while compiling, where an index out of bounds or a number that does not fit is an error"
)]

/// Bits of the code of each byte, and of the end of a string.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28,
    28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6,
    6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7,
    8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7,
    15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24,
    23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23,
    23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26,
    26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20,
    21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27,
    27, 27, 26, 30,
];

const END: u16 = 256;
const LONGEST: usize = 30;
/// Bits that are looked up at once.
const FAST: u32 = 10;

struct Tables {
    /// By the next ten bits: the symbol times 16, and the length of its code; 0 where it is longer.
    fast: [u16; 1 << FAST],
    /// The symbols, by the length of their codes and then by themselves, which is the order of their codes.
    sorted: [u16; 257],
    /// By length: the first code, how many there are, and where they begin in `sorted`.
    first: [u32; LONGEST + 1],
    count: [u32; LONGEST + 1],
    start: [u32; LONGEST + 1],
}

static TABLES: Tables = tables();

const fn tables() -> Tables {
    let mut all = Tables {
        fast: [0; 1 << FAST],
        sorted: [0; 257],
        first: [0; LONGEST + 1],
        count: [0; LONGEST + 1],
        start: [0; LONGEST + 1],
    };
    let (mut length, mut code, mut at) = (1, 0_u32, 0);
    while length <= LONGEST {
        code <<= 1;
        all.first[length] = code;
        all.start[length] = at as u32;
        let mut symbol = 0;
        while symbol < 257 {
            if LENGTHS[symbol] as usize == length {
                all.sorted[at] = symbol as u16;
                all.count[length] += 1;
                if length as u32 <= FAST {
                    let spare = FAST - length as u32;
                    let mut low = 0;
                    while low < 1 << spare {
                        all.fast[((code << spare) | low) as usize] = (symbol as u16) << 4 | length as u16;
                        low += 1;
                    }
                }
                code += 1;
                at += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    all
}

/// What is no code.
#[derive(Debug)]
pub(super) struct Malformed;

/// Decodes a string, appending to `out`.
pub(super) fn decode(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    out.reserve(bytes.len() + bytes.len() / 2);
    let mut input = bytes.iter();
    // The next bits, from the highest on, and how many there are.
    let (mut bits, mut have) = (0_u64, 0_u32);
    loop {
        while have <= 56 {
            let Some(byte) = input.next() else { break };
            bits |= u64::from(*byte) << (56 - have);
            have += 8;
        }
        if have == 0 {
            return Ok(());
        }
        let entry = TABLES.fast[(bits >> (64 - FAST)) as usize];
        let (symbol, length) = match entry {
            0 => long(bits)?,
            _ => (entry >> 4, u32::from(entry & 15)),
        };
        if length > have {
            // Padding is the beginning of the end's code, which is ones, and less than a byte.
            let ones = have < 8 && bits >> (64 - have) == (1 << have) - 1;
            return if ones { Ok(()) } else { Err(Malformed) };
        }
        if symbol == END {
            return Err(Malformed);
        }
        out.push(symbol as u8);
        bits <<= length;
        have -= length;
    }
}

fn long(bits: u64) -> Result<(u16, u32), Malformed> {
    let mut length = FAST as usize + 1;
    while length <= LONGEST {
        let code = (bits >> (64 - length)) as u32;
        let within = code.wrapping_sub(TABLES.first[length]);
        if within < TABLES.count[length] {
            let at = TABLES.start[length] + within;
            return Ok((TABLES.sorted[at as usize], length as u32));
        }
        length += 1;
    }
    Err(Malformed)
}

/// Each symbol's code and its length.
#[cfg(test)]
pub(super) fn codes() -> Vec<(u32, usize)> {
    let mut codes = vec![(0, 0); 257];
    for length in 1..=LONGEST {
        for nth in 0..TABLES.count[length] {
            let symbol = TABLES.sorted[(TABLES.start[length] + nth) as usize];
            codes[usize::from(symbol)] = (TABLES.first[length] + nth, length);
        }
    }
    codes
}
