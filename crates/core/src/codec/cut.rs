//! For tests of decoders: one body, cut in any way.

use bytes::Bytes;

/// `bytes` cut at `cuts`, whichever of them lie inside.
pub(super) fn any_cutting(bytes: &[u8], mut cuts: Vec<usize>) -> Vec<&[u8]> {
    for cut in &mut *cuts {
        *cut = (*cut).min(bytes.len());
    }
    cuts.sort_unstable();
    let starts = [0].into_iter().chain(cuts.clone());
    let ends = cuts.into_iter().chain([bytes.len()]);
    starts.zip(ends).map(|(start, end)| &bytes[start..end]).collect()
}

/// What `next` gives for each piece in turn.
pub(super) fn frames_of<T>(pieces: &[&[u8]], mut next: impl FnMut(&mut Bytes) -> Option<T>) -> Vec<T> {
    let mut frames = Vec::new();
    for piece in pieces {
        let mut chunk = Bytes::copy_from_slice(piece);
        frames.extend(std::iter::from_fn(|| next(&mut chunk)));
        assert!(chunk.is_empty());
    }
    frames
}
