//! gzip, read and written piece by piece (RFC 1952).

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use crc32fast::Hasher;
use miniz_oxide::inflate::stream::{InflateState, MinReset, inflate};
use miniz_oxide::{DataFormat, MZError, MZFlush, MZStatus};

use super::codec::{Corrupt, Decode, Encode};

/// The most that a reader takes, in bytes: its window, its tables and a piece of text.
pub const MOST: usize = 64 * 1024;

/// Reads gzip: any number of members.
pub struct Reader {
    stage: Stage,
    inflate: Box<InflateState>,
    hash: Hasher,
    length: u32,
}

enum Stage {
    /// Before or in a member's header, of which this much has come.
    Header(Vec<u8>),
    Data,
    /// In the eight bytes behind the data.
    Trailer(Vec<u8>),
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            stage: Stage::Header(Vec::new()),
            inflate: InflateState::new_boxed(DataFormat::Raw),
            hash: Hasher::new(),
            length: 0,
        }
    }
}

impl Decode for Reader {
    fn read(&mut self, input: &mut Bytes, out: &mut [u8]) -> Result<usize, Corrupt> {
        loop {
            match &mut self.stage {
                Stage::Header(known) => {
                    let before = known.len();
                    known.extend(input.iter().take(LONGEST_HEADER));
                    match header_length(known)? {
                        Some(length) => {
                            input.advance(length - before);
                            self.begin();
                        }
                        None if known.len() >= LONGEST_HEADER => return Err(Corrupt),
                        None => {
                            input.clear();
                            return Ok(0);
                        }
                    }
                }
                Stage::Data => {
                    let done = inflate(&mut self.inflate, input, out, MZFlush::None);
                    input.advance(done.bytes_consumed);
                    let written = out.get(..done.bytes_written).unwrap_or_default();
                    self.hash.update(written);
                    self.length = self.length.wrapping_add(written.len() as u32);
                    match done.status {
                        Ok(MZStatus::StreamEnd) => self.stage = Stage::Trailer(Vec::new()),
                        Ok(_) | Err(MZError::Buf) if done.bytes_written > 0 => {}
                        Ok(_) | Err(MZError::Buf) if input.is_empty() => return Ok(0),
                        Ok(_) if done.bytes_consumed > 0 => {}
                        Ok(_) | Err(_) => return Err(Corrupt),
                    }
                    if done.bytes_written > 0 {
                        return Ok(done.bytes_written);
                    }
                }
                Stage::Trailer(known) => {
                    let missing = TRAILER - known.len();
                    known.extend_from_slice(&input.split_to(missing.min(input.len())));
                    if known.len() < TRAILER {
                        return Ok(0);
                    }
                    if *known != trailer(self.hash.clone(), self.length) {
                        return Err(Corrupt);
                    }
                    self.stage = Stage::Header(Vec::new());
                }
            }
        }
    }

    fn is_whole(&self) -> bool {
        matches!(&self.stage, Stage::Header(known) if known.is_empty())
    }
}

impl Reader {
    fn begin(&mut self) {
        self.stage = Stage::Data;
        self.inflate.reset_as(MinReset);
        self.hash.reset();
        self.length = 0;
    }
}

/// The length of a member's header (section 2.3), once all of it has come.
fn header_length(known: &[u8]) -> Result<Option<usize>, Corrupt> {
    const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
    if known.iter().zip(MAGIC).any(|(byte, magic)| *byte != magic) {
        return Err(Corrupt);
    }
    let Some(flags) = known.get(3) else {
        return Ok(None);
    };
    let [check, extra, name, comment] = [2, 4, 8, 16].map(|bit| flags & bit != 0);
    if flags & 0xe0 != 0 {
        return Err(Corrupt);
    }
    let mut length = 10;
    if extra {
        let Some([low, high]) = known.get(length..length + 2) else {
            return Ok(None);
        };
        length += 2 + usize::from(u16::from_le_bytes([*low, *high]));
    }
    for _ in 0..usize::from(name) + usize::from(comment) {
        let text = known.get(length..).unwrap_or_default();
        let Some(end) = text.iter().position(|byte| *byte == 0) else {
            return Ok(None);
        };
        length += end + 1;
    }
    length += if check { 2 } else { 0 };
    Ok((known.len() >= length).then_some(length))
}

const TRAILER: usize = 8;
/// A header may hold names and comments without end, and is read from its beginning with each piece of it. Those of real
/// servers have ten bytes.
const LONGEST_HEADER: usize = 4 * 1024;

fn trailer(hash: Hasher, length: u32) -> [u8; TRAILER] {
    let [a, b, c, d] = hash.finalize().to_le_bytes();
    let [e, f, g, h] = length.to_le_bytes();
    [a, b, c, d, e, f, g, h]
}

/// Writes gzip: one member of stored blocks (RFC 1951, section 3.2.4).
#[derive(Default)]
pub struct Writer {
    begun: bool,
    hash: Hasher,
    length: u32,
}

impl Encode for Writer {
    fn add(&mut self, text: &[u8], out: &mut BytesMut) {
        if !std::mem::replace(&mut self.begun, true) {
            // No name, no time, an unknown system.
            out.put_slice(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff]);
        }
        for block in text.chunks(usize::from(u16::MAX)) {
            let length = block.len() as u16;
            out.put_u8(0);
            out.put_u16_le(length);
            out.put_u16_le(!length);
            out.put_slice(block);
        }
        self.hash.update(text);
        self.length = self.length.wrapping_add(text.len() as u32);
    }

    fn end(&mut self, out: &mut BytesMut) {
        out.put_slice(&[1, 0, 0, 0xff, 0xff]);
        out.put_slice(&trailer(self.hash.clone(), self.length));
    }
}
