package main

import (
	"net/netip"

	"github.com/dnstrace/dnstrace/tracer/kube"
)

// openCluster prepares to watch the Kubernetes API; nil where there is no Kubernetes. The
// API need not answer yet. It reads files as root. servers is called with the addresses to
// which Services lead from these ports.
func openCluster(setting string, ports []uint16, servers func([]netip.AddrPort), say func(string)) (*kube.Cluster, error) {
	cfg, _, err := kube.Find(setting)
	if err != nil {
		return nil, usageError{err}
	}
	if cfg == nil {
		return nil, nil
	}
	name, err := kube.NodeName()
	if err != nil {
		return nil, err
	}
	return kube.New(kube.Config{API: cfg, Node: name, Ports: ports, Servers: servers, Changed: say})
}

// clusterState returns what is known of the cluster; nil where there is no
// Kubernetes.
func (n *node) clusterState() *kube.State {
	if n.cluster == nil {
		return nil
	}
	st := n.cluster.State()
	return &st
}
