//! Where choices come from: chance, or an odometer that goes through all of them.

pub(crate) enum Choose {
    Chance(u64),
    /// (choice, number of choices) along the present path.
    All {
        path: Vec<(usize, usize)>,
        at: usize,
    },
}

impl Choose {
    pub(crate) fn chance(seed: u64) -> Self {
        Self::Chance(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03)
    }

    pub(crate) fn all() -> Self {
        Self::All { path: Vec::new(), at: 0 }
    }

    pub(crate) fn pick(&mut self, n: usize) -> usize {
        assert!(n > 0);
        match self {
            Self::Chance(state) => {
                *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
                let mut z = *state;
                z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
                ((z ^ (z >> 31)) % n as u64) as usize
            }
            Self::All { path, at } => {
                if *at == path.len() {
                    path.push((0, n));
                }
                assert_eq!(path[*at].1, n, "a run must not depend on anything but its choices");
                *at += 1;
                path[*at - 1].0
            }
        }
    }

    pub(crate) fn percent(&mut self, p: usize) -> bool {
        match self {
            Self::Chance(_) => self.pick(100) < p,
            Self::All { .. } => self.pick(2) == 1,
        }
    }

    /// The next path; false if there is none.
    pub(crate) fn next(&mut self) -> bool {
        let Self::All { path, at } = self else { return true };
        path.truncate(*at);
        *at = 0;
        while let Some((choice, n)) = path.pop() {
            if choice + 1 < n {
                path.push((choice + 1, n));
                return true;
            }
        }
        false
    }
}
