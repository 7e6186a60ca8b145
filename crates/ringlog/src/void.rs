//! Ranges of records that truncations have made void: in order, and apart.

use core::ops::Range;

/// The most ranges that a log has; a reader keeps them in memory.
pub(crate) const MAX_VOIDS: usize = 1 << 16;

/// Adds a range that ends behind all others, unless it is empty: it takes in those that it meets.
pub(crate) fn add<T: Copy + Ord>(voids: &mut Vec<Range<T>>, mut range: Range<T>) {
    while let Some(last) = voids.pop_if(|last| last.end >= range.start) {
        range.start = range.start.min(last.start);
    }
    if !range.is_empty() {
        voids.push(range);
    }
}

/// The range that contains `at`.
pub(crate) fn find<T: Ord>(voids: &[Range<T>], at: T) -> Option<&Range<T>> {
    let behind = voids.partition_point(|range| range.end <= at);
    voids.get(behind).filter(|range| range.contains(&at))
}

/// Whether one of the ranges contains `at`.
pub(crate) fn contains<T: Ord>(voids: &[Range<T>], at: T) -> bool {
    find(voids, at).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn void_ranges_merge_where_they_meet() {
        let mut void = Vec::new();
        let range = |start: u64, end: u64| start..end;
        for (start, end) in [(10, 20), (30, 40), (50, 60)] {
            add(&mut void, range(start, end));
        }
        assert_eq!(void.len(), 3);
        let void_at = |void: &[Range<u64>]| (0..80).filter(|at| contains(void, *at)).collect::<Vec<_>>();
        assert_eq!(void_at(&void), [(10..20), (30..40), (50..60)].into_iter().flatten().collect::<Vec<_>>());
        add(&mut void, range(35, 70));
        assert_eq!(void, [range(10, 20), range(30, 70)]);
        add(&mut void, range(5, 75));
        assert_eq!(void, [range(5, 75)]);
    }
}
