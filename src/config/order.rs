//! Which members of a list that was put into another order have moved.

/// Of positions before, in their order after: whether each kept its place among the others. As few as possible moved, so
/// that one route that was put before a thousand others has moved, and not the thousand.
pub(super) fn unmoved(before: &[usize]) -> Vec<bool> {
    // The longest increasing subsequence: `ends[n]` is where the one of length n + 1 with the smallest end has its end.
    let mut ends: Vec<usize> = Vec::new();
    let mut previous: Vec<Option<usize>> = Vec::with_capacity(before.len());
    for (at, position) in before.iter().enumerate() {
        let length = ends.partition_point(|&end| before[end] < *position);
        previous.push(length.checked_sub(1).map(|shorter| ends[shorter]));
        match ends.get_mut(length) {
            Some(end) => *end = at,
            None => ends.push(at),
        }
    }
    let mut stays = vec![false; before.len()];
    let mut last = ends.last().copied();
    while let Some(at) = last {
        stays[at] = true;
        last = previous[at];
    }
    stays
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_was_put_elsewhere_has_moved_and_the_others_have_not() {
        for (before, moved) in [
            (&[][..], &[][..]),
            (&[0, 1, 2], &[]),
            (&[5, 7, 9], &[]),
            (&[3, 0, 1, 2], &[0]),
            (&[1, 2, 3, 0], &[3]),
            (&[0, 2, 1, 3], &[1]),
        ] {
            let stays = unmoved(before);
            let found: Vec<usize> = (0..before.len()).filter(|&at| !stays[at]).collect();
            assert_eq!(found, moved, "{before:?}");
        }
        assert_eq!(unmoved(&[2, 1, 0]).iter().filter(|stays| **stays).count(), 1);
    }
}
