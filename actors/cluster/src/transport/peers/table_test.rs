use super::*;

#[test]
fn lanes_are_those_that_both_sides_have() {
    assert_eq!(effective([1, 2, 4], [2, 1, 3]), [1, 1, 3]);
    assert_eq!(all_lanes([1, 2, 1]).count(), 4);
}
