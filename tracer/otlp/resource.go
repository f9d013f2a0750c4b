package otlp

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"

	"github.com/dnstrace/dnstrace/trace"
)

// serviceName is the resource's, unless OTEL_SERVICE_NAME or
// OTEL_RESOURCE_ATTRIBUTES says another.
const serviceName = "dnstrace"

// identity is who sends: the attributes of every resource.
type identity map[attribute.Key]string

// newIdentity puts together what the environment says: OTEL_RESOURCE_ATTRIBUTES
// (for example k8s.cluster.name=prod), OTEL_SERVICE_NAME, and NODE_NAME, which a
// DaemonSet sets.
func newIdentity(getenv func(string) string, version, host string) (identity, error) {
	id := identity{semconv.ServiceNameKey: serviceName, semconv.ServiceVersionKey: version}
	id.set(semconv.HostNameKey, host)
	id.set(semconv.K8SNodeNameKey, getenv("NODE_NAME"))
	given, err := keyValues(getenv, "OTEL_RESOURCE_ATTRIBUTES")
	if err != nil {
		return nil, err
	}
	for key, value := range given {
		id.set(attribute.Key(key), value)
	}
	id.set(semconv.ServiceNameKey, getenv("OTEL_SERVICE_NAME"))
	return id, nil
}

func (id identity) set(key attribute.Key, value string) {
	if key != "" && value != "" {
		id[key] = value
	}
}

// Attributes by which Loki is to select, as deploy/logs/loki-otlp.yaml tells it: the
// labels that a shipper of files gives, so that docs/logql.md holds for both.
const (
	labelJob       attribute.Key = "job"
	labelComponent attribute.Key = "component"
	labelNode      attribute.Key = "node"
	labelCluster   attribute.Key = "cluster"
	labelNamespace attribute.Key = "namespace" // of the tracer
)

// labelled returns the identity with the labels of Loki, where it has none.
func (id identity) labelled() identity {
	c := maps.Clone(id)
	for key, value := range map[attribute.Key]string{
		labelJob: serviceName, labelComponent: "tracer", labelNode: id.node(),
		labelCluster: id[semconv.K8SClusterNameKey], labelNamespace: id[semconv.K8SNamespaceNameKey],
	} {
		c.set(key, cmp.Or(id[key], value))
	}
	return c
}

// node names the node that observes.
func (id identity) node() string {
	return cmp.Or(id[semconv.K8SNodeNameKey], id[semconv.HostNameKey])
}

// resource returns the identity as OTLP has it.
func (id identity) resource() *resourcepb.Resource {
	r := new(resourcepb.Resource)
	for _, key := range slices.Sorted(maps.Keys(id)) {
		r.Attributes = append(r.Attributes, text(key, id[key]))
	}
	return r
}

// pod is whose span it is: spans of one pod share a resource.
type pod struct{ namespace, name, container, node, workload string }

func podOf(e *trace.Endpoint) pod {
	if e == nil || e.Pod == "" {
		return pod{}
	}
	return pod{e.Namespace, e.Pod, e.Container, e.Node, e.Workload}
}

// workloadKeys are the attributes for what a pod may be of, by its kind.
var workloadKeys = map[string]attribute.Key{
	"Deployment": semconv.K8SDeploymentNameKey, "StatefulSet": semconv.K8SStatefulSetNameKey,
	"DaemonSet": semconv.K8SDaemonSetNameKey, "ReplicaSet": semconv.K8SReplicaSetNameKey,
	"Job": semconv.K8SJobNameKey, "CronJob": semconv.K8SCronJobNameKey,
}

// of returns the identity with the pod that a span is of.
func (id identity) of(p pod) identity {
	if p == (pod{}) {
		return id
	}
	c := maps.Clone(id)
	c.set(semconv.K8SNamespaceNameKey, p.namespace)
	c.set(semconv.K8SPodNameKey, p.name)
	c.set(semconv.K8SContainerNameKey, p.container)
	c.set(semconv.K8SNodeNameKey, p.node)
	if kind, name, ok := strings.Cut(p.workload, "/"); ok {
		c.set(workloadKeys[kind], name)
	}
	return c
}

// scope names what makes the records: this package.
func (id identity) scope() *commonpb.InstrumentationScope {
	return &commonpb.InstrumentationScope{Name: "github.com/dnstrace/dnstrace/tracer", Version: id[semconv.ServiceVersionKey]}
}
