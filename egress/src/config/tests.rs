//! What a routes file may not say, what it may, and how that is told.

use std::path::Path;

use super::{Draft, Fault, parse};
use crate::route::{Line, Rule};

mod broken;
mod decisions;
mod good;
mod hostile;
mod manifests;
mod observed;
mod rendered;
mod schemas;
mod slots;
mod together;

/// The faults of a text, in order.
fn faults(text: &str) -> Vec<Fault> {
    match parse("routes.yaml", text, Path::new("/nonexistent")) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.iter().cloned().collect(),
    }
}

/// The rules of a text without faults.
fn rules(text: &str) -> Vec<(Rule, Line)> {
    match parse("routes.yaml", text, Path::new("/nonexistent")) {
        Ok(rules) => rules,
        Err(faults) => panic!("{text}\n{faults}"),
    }
}

fn draft(text: &str) -> Draft {
    Draft::parse("routes.yaml", text.into(), Path::new("/nonexistent"))
}
