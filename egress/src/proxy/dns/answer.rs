//! The answer to one DNS message: pure, from the routes in force. Nothing is ever asked of anybody else.
//!
//! A name that a route admits has the steered listeners' address, and no other record: no TXT, and no HTTPS record either,
//! which could bring keys for an encrypted client hello. Every other name does not exist.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use domain::base::iana::{Class, Opcode, OptRcode, Rcode, Rtype};
use domain::base::message_builder::{AnswerBuilder, PushError, StaticCompressor};
use domain::base::opt::AllOptData;
use domain::base::{Message, MessageBuilder, ParsedName, Question};
use domain::dep::octseq::array::Array;
use domain::rdata::{A, Aaaa};

use crate::route::Routes;
use crate::route::host::Host;

/// Where admitted names lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// What A queries are answered with.
    pub v4: Option<Ipv4Addr>,
    /// What AAAA queries are answered with.
    pub v6: Option<Ipv6Addr>,
}

impl FromIterator<IpAddr> for Addresses {
    /// The last address of each family counts.
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        let mut all = Self::default();
        for address in addresses {
            match address {
                IpAddr::V4(v4) => all.v4 = Some(v4),
                IpAddr::V6(v6) => all.v6 = Some(v6),
            }
        }
        all
    }
}

/// What comes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The answer. Of what is no query there is none, so that two servers do not keep each other busy.
    pub bytes: Option<Bytes>,
    /// The name that no route admits, as a log may show it.
    pub refused: Option<String>,
}

/// Every answer fits what a client without EDNS takes (RFC 1035, section 4.2.1).
pub type Bytes = Array<512>;

type Building = AnswerBuilder<StaticCompressor<Bytes>>;

/// Bytes of a message's header.
const HEADER: usize = 12;

/// How long an answer may be kept, in seconds. A reload may take the name away.
const TTL: u32 = 10;

/// What we would take over UDP, as RFC 9715 advises.
const OUR_PAYLOAD: u16 = 1232;

/// Answers a message. The answer is at most 28 bytes longer than what was asked: an address, and our OPT record.
pub fn answer(message: &[u8], routes: &Routes, addresses: Addresses) -> Answered {
    let none = Answered {
        bytes: None,
        refused: None,
    };
    let Ok(query) = Message::from_octets(message) else {
        return none;
    };
    if query.header().qr() {
        return none;
    }
    let mut refused = None;
    let built = match Asked::of(&query) {
        Ok(asked) => respond(&query, &asked, routes, addresses, &mut refused),
        Err(rcode) => bare(&query, rcode),
    };
    Answered {
        bytes: built.ok(),
        refused,
    }
}

/// The one question of a query, and what its OPT record says.
struct Asked<'a> {
    question: Question<ParsedName<&'a [u8]>>,
    edns: Option<Edns>,
}

#[derive(Clone, Copy)]
struct Edns {
    version: u8,
    dnssec_ok: bool,
}

impl<'a> Asked<'a> {
    /// Reads a query that is one question, at the most an OPT record, and nothing else.
    fn of(query: &Message<&'a [u8]>) -> Result<Self, Rcode> {
        if query.header().opcode() != Opcode::QUERY {
            return Err(Rcode::NOTIMP);
        }
        let counts = query.header_counts();
        if counts.qdcount() != 1 || counts.ancount() != 0 || counts.nscount() != 0 {
            return Err(Rcode::FORMERR);
        }
        let question = query.sole_question().map_err(|_| Rcode::FORMERR)?;
        // There is nothing before the name that it could point to, but the library would follow it into the header.
        let length: usize = question.qname().iter().map(|label| label.len() + 1).sum();
        let end = query.answer().map_err(|_| Rcode::FORMERR)?.pos();
        if end != HEADER + length + 4 {
            return Err(Rcode::FORMERR);
        }
        let mut edns = None;
        let mut additional = query.additional().map_err(|_| Rcode::FORMERR)?;
        for record in additional.by_ref() {
            let record = record.map_err(|_| Rcode::FORMERR)?;
            // RFC 6891, section 6.1.1: more than one is a format error. What else may stand here is for zone transfers.
            if record.rtype() != Rtype::OPT || edns.is_some() || !record.owner().is_root() {
                return Err(Rcode::FORMERR);
            }
            let opt = query.opt().ok_or(Rcode::FORMERR)?;
            if opt
                .opt()
                .iter::<AllOptData<_, _>>()
                .any(|option| option.is_err())
            {
                return Err(Rcode::FORMERR);
            }
            edns = Some(Edns {
                version: opt.version(),
                dnssec_ok: opt.dnssec_ok(),
            });
        }
        if additional.pos() != query.as_slice().len() {
            return Err(Rcode::FORMERR);
        }
        Ok(Self { question, edns })
    }

    /// The host, where the name is one.
    fn host(&self) -> Option<Host> {
        let mut text = String::new();
        for label in self
            .question
            .qname()
            .iter()
            .filter(|label| !label.is_root())
        {
            let label = std::str::from_utf8(label.as_slice()).ok()?;
            // A dot inside of a label is another name than the one that it looks like.
            if label.contains('.') {
                return None;
            }
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(label);
        }
        Host::parse(&text)
            .ok()
            .filter(|host| host.as_name().is_some())
    }

    /// The name as it was asked for: ASCII, and no longer than a log line may well be.
    fn printable(&self) -> String {
        const LONGEST: usize = 256;
        let mut text = String::new();
        for label in self
            .question
            .qname()
            .iter()
            .filter(|label| !label.is_root())
        {
            for byte in label.as_slice() {
                match byte {
                    b'.' => text.push_str("\\."),
                    byte => text.extend(byte.escape_ascii().map(char::from)),
                }
            }
            text.push('.');
        }
        match text.pop() {
            Some(_) => {}
            None => text.push('.'),
        }
        text.truncate(LONGEST);
        text
    }
}

fn respond(
    query: &Message<&[u8]>,
    asked: &Asked<'_>,
    routes: &Routes,
    addresses: Addresses,
    refused: &mut Option<String>,
) -> Result<Bytes, PushError> {
    if asked.edns.is_some_and(|edns| edns.version != 0) {
        return finish(start(query, Rcode::NOERROR)?, asked, OptRcode::BADVERS);
    }
    let rtype = asked.question.qtype();
    if asked.question.qclass() != Class::IN || matches!(rtype, Rtype::AXFR | Rtype::IXFR) {
        return finish(start(query, Rcode::REFUSED)?, asked, OptRcode::REFUSED);
    }
    if !asked.host().is_some_and(|host| routes.names(&host)) {
        *refused = Some(asked.printable());
        return finish(start(query, Rcode::NXDOMAIN)?, asked, OptRcode::NXDOMAIN);
    }
    let mut answer = start(query, Rcode::NOERROR)?;
    let name = asked.question.qname();
    match (rtype, addresses.v4, addresses.v6) {
        (Rtype::A, Some(v4), _) => answer.push((name, TTL, A::new(v4)))?,
        (Rtype::AAAA, _, Some(v6)) => answer.push((name, TTL, Aaaa::new(v6)))?,
        _ => {}
    }
    finish(answer, asked, OptRcode::NOERROR)
}

/// An answer that repeats the question, byte for byte: a client that varies the case compares it.
fn start(query: &Message<&[u8]>, rcode: Rcode) -> Result<Building, PushError> {
    let mut answer = builder()?.start_answer(query, rcode)?;
    // A stub resolver passes by a server that offers no recursion.
    answer.header_mut().set_ra(true);
    answer.header_mut().set_cd(query.header().cd());
    Ok(answer)
}

/// Adds an OPT record where the query had one (RFC 6891, section 6.1.1), without any option.
fn finish(answer: Building, asked: &Asked<'_>, rcode: OptRcode) -> Result<Bytes, PushError> {
    let mut additional = answer.additional();
    if let Some(edns) = asked.edns {
        additional.opt(|opt| {
            opt.set_udp_payload_size(OUR_PAYLOAD);
            opt.set_rcode(rcode);
            opt.set_dnssec_ok(edns.dnssec_ok);
            Ok(())
        })?;
    }
    Ok(additional.finish().into_target())
}

/// The header alone, for a query that could not be read.
fn bare(query: &Message<&[u8]>, rcode: Rcode) -> Result<Bytes, PushError> {
    let mut answer = builder()?;
    let header = answer.header_mut();
    header.set_id(query.header().id());
    header.set_qr(true);
    header.set_opcode(query.header().opcode());
    header.set_rd(query.header().rd());
    header.set_rcode(rcode);
    Ok(answer.finish().into_target())
}

fn builder() -> Result<MessageBuilder<StaticCompressor<Bytes>>, PushError> {
    MessageBuilder::from_target(StaticCompressor::new(Bytes::new()))
        .map_err(|_| PushError::ShortBuf)
}

#[cfg(test)]
mod tests;
