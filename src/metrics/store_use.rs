//! How full the store is: one figure, or one for each node of a cluster.

use std::sync::{Arc, PoisonError, RwLock};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Gauge, LabelPair, Metric, MetricFamily, MetricType};

/// A node, where there are several, and its figure.
pub(super) type NodeShare = (Option<String>, f64);

/// A gauge whose label is there where there are nodes to tell apart.
#[derive(Clone)]
pub(super) struct StoreUse {
    description: Desc,
    nodes: Arc<RwLock<Vec<NodeShare>>>,
}

const NAME: &str = "onlyonce_store_used_ratio";
const HELP: &str = "How full the store is, or each node of it, from 0 to 1; 0 where it has no limit.";
const NODE: &str = "node";

impl StoreUse {
    pub(super) fn new() -> prometheus::Result<Self> {
        let description = Desc::new(NAME.to_owned(), HELP.to_owned(), vec![NODE.to_owned()], Default::default())?;
        Ok(Self { description, nodes: Arc::default() })
    }

    /// Each with its name, or one without.
    pub(super) fn set(&self, nodes: Vec<NodeShare>) {
        *self.nodes.write().unwrap_or_else(PoisonError::into_inner) = nodes;
    }
}

impl Collector for StoreUse {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.description]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        let alone = [(None, 0.0)];
        // Where nothing has a limit, that is one figure, too.
        let told = if nodes.is_empty() { &alone[..] } else { &nodes };
        let metrics = told.iter().map(|(node, used)| {
            let mut gauge = Gauge::default();
            gauge.set_value(*used);
            let mut metric = Metric::from_gauge(gauge);
            metric.set_label(node.iter().map(|node| label(node)).collect());
            metric
        });
        let mut family = MetricFamily::default();
        family.set_name(NAME.to_owned());
        family.set_help(HELP.to_owned());
        family.set_field_type(MetricType::GAUGE);
        family.set_metric(metrics.collect());
        vec![family]
    }
}

fn label(node: &str) -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name(NODE.to_owned());
    label.set_value(node.to_owned());
    label
}
