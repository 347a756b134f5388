//! Encoded bytes as a chain of pieces, so that payloads are pointed to instead of copied.

use bytes::buf::UninitSlice;
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Payloads from this size on become pieces of their own; copying smaller ones is cheaper than
/// another write.
const OWN_PIECE: usize = 16 << 10;

/// A buffer to encode into: small values are gathered, large payloads kept as they are.
#[derive(Default)]
pub(crate) struct Rope {
    pieces: Vec<Bytes>,
    tail: BytesMut,
}

impl Rope {
    /// The pieces in order; together they are the encoded bytes.
    pub(crate) fn into_pieces(mut self) -> Vec<Bytes> {
        self.close_tail();
        self.pieces
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push(self.tail.split().freeze());
        }
    }
}

// SAFETY: the three methods that the trait requires are those of `BytesMut`, on a field that
// nothing else touches between `chunk_mut` and `advance_mut`.
#[expect(unsafe_code)]
unsafe impl BufMut for Rope {
    fn remaining_mut(&self) -> usize {
        // A `BytesMut` counts what it holds; the rope starts a new one when pieces are closed.
        self.tail.remaining_mut()
    }

    unsafe fn advance_mut(&mut self, count: usize) {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.tail.advance_mut(count) }
    }

    fn chunk_mut(&mut self) -> &mut UninitSlice {
        self.tail.chunk_mut()
    }

    fn put_slice(&mut self, slice: &[u8]) {
        self.tail.extend_from_slice(slice);
    }

    /// The encoder hands over each `bytes` field through here, as `Bytes`, whose
    /// `copy_to_bytes` is a slice and no copy.
    fn put<T: Buf>(&mut self, mut source: T) {
        if source.remaining() >= OWN_PIECE {
            self.close_tail();
            let len = source.remaining();
            self.pieces.push(source.copy_to_bytes(len));
            return;
        }
        while source.has_remaining() {
            let chunk = source.chunk();
            self.tail.extend_from_slice(chunk);
            let len = chunk.len();
            source.advance(len);
        }
    }
}
