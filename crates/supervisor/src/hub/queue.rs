//! A queue of bytes.

/// Bytes waiting to be written. Gives its memory back when it runs empty after having been big.
#[derive(Default)]
pub(crate) struct ByteQueue {
    bytes: Vec<u8>,
    start: usize,
}

impl ByteQueue {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 && self.start >= self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn front(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or(&[])
    }

    /// Forgets the first `count` bytes.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.bytes.len());
        if self.is_empty() {
            self.clear();
        }
    }

    pub(crate) fn clear(&mut self) {
        self.start = 0;
        if self.bytes.capacity() > 16 << 10 {
            self.bytes = Vec::new();
        } else {
            self.bytes.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_order() {
        let mut queue = ByteQueue::default();
        queue.push(b"abcdef");
        queue.consume(4);
        queue.push(b"gh");
        assert_eq!(queue.front(), b"efgh");
        queue.consume(9);
        assert!(queue.is_empty());
        queue.push(b"x");
        assert_eq!((queue.front(), queue.len()), (&b"x"[..], 1));
    }
}
