//! Where the messages of a gRPC body end (gRPC over HTTP/2, "Length-Prefixed-Message"). Pure.

/// Follows a body from message to message.
#[derive(Debug, Default)]
pub struct Messages {
    /// Of the head before the next message: a byte that says whether it is compressed, and four of its length.
    head: Vec<u8>,
    /// What the message lacks.
    left: usize,
}

impl Messages {
    /// Takes the next piece, and tells whether a message ends with it. Then whoever reads it has all that there is to wait for.
    pub fn end_with(&mut self, mut piece: &[u8]) -> bool {
        while !piece.is_empty() {
            if self.left == 0 {
                let missing = HEAD - self.head.len();
                let (head, rest) = piece.split_at(missing.min(piece.len()));
                self.head.extend_from_slice(head);
                piece = rest;
                let [_, length @ ..] = self.head.as_slice() else {
                    break;
                };
                let Ok(length) = length.try_into() else { break };
                self.left = u32::from_be_bytes(length) as usize;
                self.head.clear();
            }
            let (message, rest) = piece.split_at(self.left.min(piece.len()));
            self.left -= message.len();
            piece = rest;
        }
        self.left == 0 && self.head.is_empty()
    }
}

const HEAD: usize = 5;

#[cfg(test)]
mod tests {
    use super::Messages;

    #[test]
    fn a_message_ends_with_its_last_byte_however_it_is_cut() {
        let mut body = vec![0, 0, 0, 0, 3];
        body.extend(b"abc");
        body.extend([1, 0, 0, 0, 0]);
        body.extend([0, 0, 0, 1, 0]);
        body.extend([7; 256]);
        let ends = [8, 13, body.len()];
        for cut in 1..body.len() {
            let mut messages = Messages::default();
            assert_eq!(
                messages.end_with(&body[..cut]),
                ends.contains(&cut),
                "{cut}"
            );
            assert!(messages.end_with(&body[cut..]), "{cut}");
        }
        let mut messages = Messages::default();
        for at in 0..body.len() {
            let ended = messages.end_with(&body[at..=at]);
            assert_eq!(ended, ends.contains(&(at + 1)), "{at}");
        }
    }
}
