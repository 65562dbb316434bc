//! One thing done for each of many, some at a time.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::task::JoinSet;

use super::SessionsError;

/// At a time: enough that a store's distance does not count, few enough that others are not kept waiting.
const LANES: usize = 32;

/// What became of each, in their order. One that fails leaves the others alone; after as many failures as
/// there are lanes nothing more is begun: the store is away.
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
    let failures = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for lane in lanes {
        let (work, failures) = (work.clone(), Arc::clone(&failures));
        tasks.spawn(async move {
            let mut done = Vec::with_capacity(lane.len());
            for (at, item) in lane {
                if failures.load(Ordering::Relaxed) >= LANES {
                    done.push((at, Err(SessionsError::Interrupted)));
                    continue;
                }
                let result = work(item).await;
                if result.is_err() {
                    failures.fetch_add(1, Ordering::Relaxed);
                }
                done.push((at, result));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_come_in_order_and_failures_stay_alone() {
        let work = |number: u32| async move {
            if number == 50 { Err(SessionsError::NotRead) } else { Ok(number * 2) }
        };
        let results = each((0..100).collect(), work).await;
        for (at, result) in results.iter().enumerate() {
            match result {
                Ok(number) => assert_eq!(*number as usize, at * 2),
                Err(_) => assert_eq!(at, 50),
            }
        }
        assert_eq!(results.len(), 100);
        assert!(each(Vec::new(), work).await.is_empty());
    }

    #[tokio::test]
    async fn where_all_fails_little_is_tried() {
        let tried = Arc::new(AtomicUsize::new(0));
        let work = {
            let tried = Arc::clone(&tried);
            move |_: u32| {
                tried.fetch_add(1, Ordering::Relaxed);
                async { Err::<(), _>(SessionsError::TimedOut) }
            }
        };
        let results = each((0..1000).collect(), work).await;
        assert!(results.len() == 1000 && results.iter().all(Result::is_err));
        assert!(tried.load(Ordering::Relaxed) < 2 * LANES);
    }
}
