//! The end of a chunked body (RFC 9112, 7.1), strictly: no white space after a size, no extensions, CRLF only.
//!
//! Extensions are refused although a recipient "MUST ignore" those it does not know: no client we serve sends any,
//! hyper would drop them anyway, and how their end is found is where parsers differ (the TERM.EXT and EXT.TERM
//! families of request smuggling; CVE-2025-55315).

use super::fault::Fault;
use super::head::{is_tchar, is_text};

/// The state between two bytes of a chunked body.
#[derive(Debug, Default)]
pub(super) struct Chunked {
    at: At,
    /// The size being read; then what is left of the chunk's data.
    left: u64,
    digits: u8,
    trailer_bytes: usize,
    trailers: usize,
}

/// How far [`Chunked::advance`] came.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Progress {
    Open,
    End,
    Fault(Fault),
}

impl Chunked {
    /// Steps over `input` and returns how many bytes lie before the end, the fault, or the end of the input.
    pub(super) fn advance(&mut self, input: &[u8], max_trailers: usize) -> (usize, Progress) {
        let mut taken = 0;
        while let Some((&byte, rest)) = input.get(taken..).and_then(<[u8]>::split_first) {
            if self.at == At::Data {
                // Data is stepped over, not looked at.
                let data = (rest.len() + 1).min(usize::try_from(self.left).unwrap_or(usize::MAX));
                taken += data;
                self.left = self.left.saturating_sub(data as u64);
                if self.left == 0 {
                    self.at = At::DataCr;
                }
                continue;
            }
            match self.step(byte, max_trailers) {
                Ok(At::End) => return (taken + 1, Progress::End),
                Ok(at) => self.at = at,
                Err(fault) => return (taken, Progress::Fault(fault)),
            }
            taken += 1;
        }
        (taken, Progress::Open)
    }

    fn step(&mut self, byte: u8, max_trailers: usize) -> Result<At, Fault> {
        if matches!(self.at, At::TrailerName | At::TrailerValue | At::Trailer) {
            self.trailer_bytes += 1;
            if self.trailer_bytes > MAX_TRAILER_BYTES {
                return Err(Fault::TrailersTooLarge);
            }
        }
        match (self.at, byte) {
            (At::Size, b'\r') if self.digits > 0 => Ok(At::SizeLf),
            (At::Size, b';') if self.digits > 0 => Err(Fault::ChunkExtension),
            (At::Size, _) => self.digit(byte),
            (At::SizeLf, b'\n') if self.left == 0 => Ok(At::Trailer),
            (At::SizeLf, b'\n') => Ok(At::Data),
            (At::SizeLf, _) => Err(Fault::ChunkSize),
            (At::DataCr, b'\r') => Ok(At::DataLf),
            (At::DataLf, b'\n') => {
                self.digits = 0;
                Ok(At::Size)
            }
            (At::DataCr | At::DataLf, _) => Err(Fault::ChunkEnd),
            (At::Trailer, b'\r') => Ok(At::EndLf),
            (At::Trailer, _) if is_tchar(byte) => {
                self.trailers += 1;
                if self.trailers > max_trailers {
                    return Err(Fault::TrailersTooLarge);
                }
                Ok(At::TrailerName)
            }
            (At::TrailerName, b':') => Ok(At::TrailerValue),
            (At::TrailerName, _) if is_tchar(byte) => Ok(At::TrailerName),
            (At::TrailerValue, b'\r') => Ok(At::TrailerLf),
            (At::TrailerValue, _) if is_text(byte) => Ok(At::TrailerValue),
            (At::TrailerLf, b'\n') => Ok(At::Trailer),
            (At::EndLf, b'\n') => Ok(At::End),
            _ => Err(Fault::Trailer),
        }
    }

    fn digit(&mut self, byte: u8) -> Result<At, Fault> {
        let digit = char::from(byte).to_digit(16).ok_or(Fault::ChunkSize)?;
        // 16 digits fill a u64; a size that a peer with signed lengths would take for a negative one is no size.
        if self.digits == MAX_DIGITS {
            return Err(Fault::ChunkSize);
        }
        self.digits += 1;
        self.left = (self.left << 4) | u64::from(digit);
        if i64::try_from(self.left).is_err() {
            return Err(Fault::ChunkSize);
        }
        Ok(At::Size)
    }
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum At {
    #[default]
    Size,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// The first byte of a trailer line or of the final empty one.
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    End,
}

const MAX_DIGITS: u8 = 16;

/// Below hyper's own bound of 16 KiB, line ends included.
const MAX_TRAILER_BYTES: usize = 8192;
