//! The threat model, attack by attack. A test's name begins with the row that it stands for.

mod cookies;
