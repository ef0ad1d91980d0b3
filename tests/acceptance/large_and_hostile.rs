//! Scale and chaos: rows L.

mod chaos;
mod lost_parts;
mod many_stages;
mod sizes;
mod two_gangs;
mod untidy_messages;

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn new(seed: usize) -> Self {
        Dice(seed as u64)
    }

    /// One of `0..sides`.
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) as usize % sides
    }
}
