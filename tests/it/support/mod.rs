//! What several integration tests need: places for lakes, a store that fails on request, an independent
//! reader, processes, credentials.

pub(crate) mod counting;
pub(crate) mod credentials;
pub(crate) mod faulty;
pub(crate) mod ground;
pub(crate) mod hand;
pub(crate) mod process;
pub(crate) mod s3;
pub(crate) mod team;
pub(crate) mod truth;

/// Declares each test once for a lake in a local folder and once for one on an S3 server.
macro_rules! on_both_grounds {
    ($($(#[$note:meta])* async fn $name:ident($ground:ident) $body:block)*) => {
        $(
            $(#[$note])*
            mod $name {
                use super::*;

                async fn run($ground: $crate::support::ground::Ground) $body

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn in_a_local_folder() {
                    run($crate::support::ground::Ground::local()).await;
                }

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn on_an_s3_server() {
                    run($crate::support::ground::Ground::bucket()).await;
                }
            }
        )*
    };
}
pub(crate) use on_both_grounds;
