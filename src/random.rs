//! Random bytes for tokens and nonces, without a system call for each.

use std::cell::RefCell;

/// Random bytes of the operating system, and how many of them were handed out.
struct RandomPool {
    bytes: [u8; 512],
    used: usize,
}

thread_local! {
    static POOL: RefCell<RandomPool> = const { RefCell::new(RandomPool { bytes: [0; 512], used: 512 }) };
}

/// Random bytes. They are erased from the pool, so that they are not handed out twice and cannot be read from memory
/// later.
pub fn random<const N: usize>() -> [u8; N] {
    POOL.with_borrow_mut(|pool| {
        if pool.bytes.len() - pool.used < N {
            getrandom::fill(&mut pool.bytes).expect("the operating system gives random bytes");
            pool.used = 0;
        }
        let mut bytes = [0; N];
        bytes.swap_with_slice(&mut pool.bytes[pool.used..pool.used + N]);
        pool.used += N;
        bytes
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_bytes_are_handed_out_twice_and_none_stay_behind() {
        let mut seen = HashSet::new();
        for _ in 0..200 {
            assert!(seen.insert(random::<16>()));
            let _one = random::<1>();
            POOL.with_borrow(|pool| assert!(pool.bytes[..pool.used].iter().all(|byte| *byte == 0)));
        }
        let other = std::thread::spawn(|| (0..200).map(|_| random::<16>()).collect::<Vec<_>>());
        assert!(other.join().expect("no panic").into_iter().all(|bytes| seen.insert(bytes)));
    }
}
