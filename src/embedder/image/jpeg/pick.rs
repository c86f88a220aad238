//! The set bit of a number that has so many others before it.

use std::hint::select_unpredictable;

/// A way to find it.
pub(super) trait Pick {
    /// The set bit of `places` that has as many set bits before it as `number` has zeros before its only set bit. 0
    /// where there is none in one of them.
    fn pick(number: u32, places: u64) -> u64;
}

/// For any processor.
pub(super) struct Stepwise;

impl Pick for Stepwise {
    #[inline(always)]
    fn pick(mut number: u32, mut places: u64) -> u64 {
        let less_one = |places: u64| places & places.wrapping_sub(1);
        if number > 8 {
            while number > 1 {
                places = less_one(places);
                number >>= 1;
            }
            return places & places.wrapping_neg();
        }
        // Mostly it is one of the first four, and a processor cannot foresee which.
        let second = less_one(places);
        let third = less_one(second);
        let fourth = less_one(third);
        let odd = number & 0b1010 > 0;
        let [low, high] = [(second, places), (fourth, third)].map(|(a, b)| select_unpredictable(odd, a, b));
        let picked = select_unpredictable(number & 0b1100 > 0, high, low);
        select_unpredictable(number > 0, picked & picked.wrapping_neg(), 0)
    }
}

/// For processors with BMI2.
#[cfg(target_arch = "x86_64")]
pub(super) struct AtOnce;

#[cfg(target_arch = "x86_64")]
impl Pick for AtOnce {
    #[inline(always)]
    fn pick(number: u32, places: u64) -> u64 {
        // SAFETY: this way is taken only where the processor was found to have the instruction.
        unsafe { std::arch::x86_64::_pdep_u64(number.into(), places) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_by_one(number: u32, places: u64) -> u64 {
        let mut set = (0..64).map(|at| 1 << at).filter(|bit| places & bit > 0);
        if number == 0 { 0 } else { set.nth(number.trailing_zeros() as usize).unwrap_or(0) }
    }

    fn tried(pick: impl Fn(u32, u64) -> u64) {
        let mut random = fastrand::Rng::with_seed(1);
        let mut places = vec![0, 1, 1 << 63, u64::MAX];
        places.extend((0..1000).map(|_| random.u64(..) & random.u64(..)));
        for places in places {
            for number in (0..16).map(|zeros| 1 << zeros).chain([0]) {
                assert_eq!(pick(number, places), one_by_one(number, places), "{number} of {places:#x}");
            }
        }
    }

    #[test]
    fn every_way_finds_the_bit() {
        tried(Stepwise::pick);
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("bmi2") {
            tried(AtOnce::pick);
        }
    }
}
