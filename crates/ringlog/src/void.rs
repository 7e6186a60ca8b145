//! Ranges of records that truncations have made void: in order, and apart.

use core::ops::Range;

/// Takes those ranges off the end that `range` meets, and returns it with them; it belongs at the end then. It must end
/// behind all others.
pub(crate) fn merge<T: Copy + Ord>(voids: &mut Vec<Range<T>>, mut range: Range<T>) -> Range<T> {
    while let Some(last) = voids.pop_if(|last| last.end >= range.start) {
        range.start = range.start.min(last.start);
    }
    range
}

/// Whether one of the ranges contains `at`.
pub(crate) fn contains<T: Ord>(voids: &[Range<T>], at: T) -> bool {
    let behind = voids.partition_point(|range| range.end <= at);
    voids.get(behind).is_some_and(|range| range.contains(&at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn void_ranges_merge_where_they_meet() {
        let mut void = Vec::new();
        let range = |start: u64, end: u64| start..end;
        let add = |void: &mut Vec<_>, range| {
            let range = merge(void, range);
            void.push(range);
        };
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
