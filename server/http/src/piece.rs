//! Short texts that are copied without a loop.

/// A short text in a space of fixed size, so that copying it is a few vector moves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Piece<N> {
    /// # Panics
    ///
    /// If `text` is longer than `N`; at compile time where it is a constant.
    pub(super) const fn new(text: &str) -> Self {
        Self::joined(&[text])
    }

    /// All of `texts`, one behind the other.
    ///
    /// # Panics
    ///
    /// If they are longer than `N`; at compile time where they are constants.
    pub(super) const fn joined(texts: &[&str]) -> Self {
        let mut bytes = [0; N];
        let mut len = 0;
        let mut index = 0;
        while index < texts.len() {
            let text = texts[index].as_bytes();
            assert!(text.len() <= N - len, "the text is too long");
            let mut at = 0;
            while at < text.len() {
                bytes[len] = text[at];
                len += 1;
                at += 1;
            }
            index += 1;
        }
        Piece { bytes, len }
    }

    /// Bytes that are not text.
    ///
    /// # Panics
    ///
    /// If they are longer than `N`; at compile time where they are constants.
    pub(super) const fn of_bytes(text: &[u8]) -> Self {
        let mut bytes = [0; N];
        let mut at = 0;
        while at < text.len() {
            bytes[at] = text[at];
            at += 1;
        }
        Piece {
            bytes,
            len: text.len(),
        }
    }

    /// The text without its padding.
    pub(super) const fn as_bytes(&self) -> &[u8] {
        self.bytes.split_at(self.len).0
    }

    /// The text with its padding.
    #[inline]
    pub(super) fn padded(&self) -> &[u8; N] {
        &self.bytes
    }

    #[inline]
    pub(super) const fn len(&self) -> usize {
        self.len
    }
}
