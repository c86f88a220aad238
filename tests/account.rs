//! Acting as the user of the server's processes, with that user's rights and nothing of root's.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::thread;

use nix::libc;

use crate::cluster::TestCluster;

/// Runs something in a thread that acts as the user of the cluster's server: the kernel lets each thread have its own.
pub fn as_servers_user<T: Send>(cluster: &TestCluster, act: impl FnOnce() -> T + Send) -> T {
    let folder = fs::metadata(cluster.server.data()).expect("the data directory is there");
    let (user, group) = (libc::c_long::from(folder.uid()), libc::c_long::from(folder.gid()));
    thread::scope(|scope| {
        let acting = scope.spawn(|| {
            // SAFETY: both calls take numbers alone; they change this thread, which ends here.
            let changed = unsafe {
                libc::syscall(libc::SYS_setresgid, -1, group, -1)
                    | libc::syscall(libc::SYS_setresuid, -1, user, -1)
            };
            assert_eq!(changed, 0, "the thread acts as the server's user");
            act()
        });
        acting.join().expect("nothing panicked")
    })
}
