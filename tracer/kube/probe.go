package kube

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dnstrace/dnstrace/tracer/capture"
)

// probeWithin bounds how long Probe waits for the API server.
const probeWithin = 5 * time.Second

// Probe finds out whether names of pods and Services can be had.
func Probe(ctx context.Context, setting string) capture.Finding {
	f := capture.Finding{What: "Kubernetes", Lost: "clients and servers are shown by address, process and container, without pod and Service"}
	cfg, why, err := Find(setting)
	switch {
	case err != nil:
		f.Detail, f.Remedy = err.Error(), "name another kubeconfig with --kubernetes"
		return f
	case cfg == nil:
		// Without Kubernetes nothing is lost.
		f.OK, f.Detail = true, "none: "+why
		return f
	}
	node, err := NodeName()
	if err != nil {
		f.Detail, f.Remedy = err.Error(), "set the environment variable NODE_NAME to the node's name"
		return f
	}
	ctx, cancel := context.WithTimeout(ctx, probeWithin)
	defer cancel()
	c, err := New(Config{API: cfg, Node: node})
	if err != nil {
		f.Detail, f.Remedy = err.Error(), "correct it, or turn names off with --kubernetes off"
		return f
	}
	var failed []string
	for _, s := range c.sources {
		if _, err := s.from.ListWithContext(ctx, metav1.ListOptions{Limit: 1}); err != nil {
			failed = append(failed, fmt.Sprintf("%s: %s", s.what, reason(err)))
		}
	}
	if len(failed) > 0 {
		f.Detail = strings.Join(failed, "; ")
		f.Remedy = "let the API server be reachable, and the service account list and watch pods, Services and EndpointSlices (deploy/base/rbac.yaml)"
		return f
	}
	f.OK, f.Detail = true, fmt.Sprintf("%s tells of the pods of node %s, of Services and EndpointSlices", hostOf(cfg.Host), node)
	return f
}

// hostOf returns the address of an API server without a password in it.
func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return "the API server"
	}
	return u.Redacted()
}
