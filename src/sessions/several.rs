//! One thing done for each of many, some at a time.

use tokio::task::JoinSet;

use super::SessionsError;

/// At a time: enough that a store's distance does not count, few enough that others are not kept waiting.
const LANES: usize = 32;

/// What became of each, in their order. One that fails leaves the others alone.
pub(super) async fn each<T, R, F>(
    items: Vec<T>,
    work: impl Fn(T) -> F + Clone + Send + 'static,
) -> Vec<Result<R, SessionsError>>
where
    T: Send + 'static,
    R: Send + 'static,
    F: Future<Output = Result<R, SessionsError>> + Send,
{
    let mut lanes: Vec<Vec<(usize, T)>> = Vec::new();
    lanes.resize_with(LANES.min(items.len()), Vec::new);
    let count = lanes.len();
    for (at, item) in items.into_iter().enumerate() {
        lanes[at % count].push((at, item));
    }
    let mut tasks = JoinSet::new();
    for lane in lanes {
        let work = work.clone();
        tasks.spawn(async move {
            let mut done = Vec::with_capacity(lane.len());
            for (at, item) in lane {
                done.push((at, work(item).await));
            }
            done
        });
    }
    let mut done = Vec::new();
    while let Some(lane) = tasks.join_next().await {
        match lane {
            Ok(lane) => done.extend(lane),
            Err(_) => done.push((usize::MAX, Err(SessionsError::Interrupted))),
        }
    }
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}
