//! Writing entries behind the end of the chain, in one transaction.

use std::sync::Arc;

use rusqlite::{Connection, Statement, Transaction, TransactionBehavior, params};

use super::entry::Entry;
use super::kinds::{Kinds, Known};
use super::row::{Last, Row};
use super::schema::end;

/// Adds a row for each entry after `before`. None where the file ends otherwise.
pub(super) fn append(
    connection: &mut Connection,
    kinds: &mut Kinds,
    before: Last,
    entries: &[Arc<Entry>],
    bottle: Option<&str>,
) -> rusqlite::Result<Option<Last>> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if end(&transaction)? != before {
        return Ok(None);
    }
    let written = write(&transaction, kinds, before, entries, bottle);
    let written = written.and_then(|last| transaction.commit().map(|()| last));
    if written.is_err() {
        kinds.forget();
    }
    written.map(Some)
}

/// Rows of one stretch at the most. Who looks for one knows how far before it the stretch can begin.
pub(super) const SPAN: i64 = 1024;

fn write(
    transaction: &Transaction<'_>,
    kinds: &mut Kinds,
    before: Last,
    entries: &[Arc<Entry>],
    bottle: Option<&str>,
) -> rusqlite::Result<Last> {
    let mut rows = transaction
        .prepare("INSERT INTO rows VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)")?;
    let mut spans = transaction.prepare("INSERT INTO spans VALUES (?1, ?2, ?3)")?;
    let mut new_kinds = transaction.prepare(
        "INSERT INTO kinds VALUES (NULL, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?;
    let mut last = before;
    for stretch in entries.chunks(SPAN as usize) {
        let span = last.number + 1;
        let end = last.number + stretch.len() as i64;
        for entry in stretch {
            let number = last.number + 1;
            let known = match kinds.of(entry) {
                Some(known) => known,
                None => {
                    let known = new_kind(&mut new_kinds, &entry.row(bottle))?;
                    kinds.add(entry, known)
                }
            };
            if known.span != span {
                known.span = span;
                spans.execute([span, known.kind, end])?;
            }
            let id = entry.id.map(|id| id.to_string());
            let own = entry.own(number, id.as_deref());
            let link = own.link(&last.link, &known.hash);
            rows.execute(params![
                number,
                known.kind,
                own.time,
                own.path,
                own.query,
                own.bytes_up,
                own.bytes_down,
                own.head_us,
                own.total_us,
                own.id,
                own.detail,
                link.0,
            ])?;
            last = Last { number, link };
        }
    }
    Ok(last)
}

/// Writes what a row has alike with others of its kind.
fn new_kind(insert: &mut Statement<'_>, row: &Row<'_>) -> rusqlite::Result<Known> {
    let kind = insert.insert(params![
        row.client,
        row.bottle,
        row.method,
        row.scheme,
        row.host,
        row.route,
        row.verdict,
        row.code,
        row.slot,
        row.credential,
        row.status,
        row.upstream,
    ])?;
    Ok(Known {
        kind,
        hash: row.kind_hash(),
        span: 0,
    })
}
