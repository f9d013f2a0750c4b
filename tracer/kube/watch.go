package kube

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/dnstrace/dnstrace/tracer/oneline"
	"github.com/dnstrace/dnstrace/tracer/webclient"
)

// lists is where objects come from.
type lists struct {
	pods, services, slices cache.ListerWatcherWithContext
}

// dial prepares requests to the API server; it sends none. It registers only the two API
// groups that are needed: all of them would take 15 MB.
func dial(cfg *rest.Config, node string) (lists, error) {
	if _, _, err := rest.DefaultServerUrlFor(cfg); err != nil {
		// Its text would repeat the address, and with it a password.
		return lists{}, errors.New("kubernetes: the address of the API server is none: expected one such as https://192.0.2.1:6443; check --kubernetes, or turn it off with --kubernetes off")
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, discoveryv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return lists{}, fmt.Errorf("kubernetes: %w", err)
		}
	}
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	codecs := serializer.NewCodecFactory(scheme).WithoutConversion()
	client := func(gv schema.GroupVersion, path string) (*rest.RESTClient, error) {
		c := rest.CopyConfig(cfg)
		c.GroupVersion, c.APIPath, c.NegotiatedSerializer = &gv, path, codecs
		c.ContentType, c.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON
		c.UserAgent, c.WarningHandler = "dnstrace", rest.NoWarnings{}
		found, err := rest.HTTPClientFor(c)
		if err != nil {
			return nil, fmt.Errorf("kubernetes: %w; check --kubernetes, or turn it off with --kubernetes off", err)
		}
		// Its transport would show the token to whatever host a redirect leads to. It may
		// be everybody's client, so a copy is changed.
		own := *found
		own.CheckRedirect = webclient.NoRedirect
		return rest.RESTClientForConfigAndClient(c, &own)
	}
	core, err := client(corev1.SchemeGroupVersion, "/api")
	if err != nil {
		return lists{}, err
	}
	discovery, err := client(discoveryv1.SchemeGroupVersion, "/apis")
	if err != nil {
		return lists{}, err
	}
	return lists{
		pods:     cache.NewListWatchFromClient(core, "pods", metav1.NamespaceAll, fields.OneTermEqualSelector("spec.nodeName", node)),
		services: cache.NewListWatchFromClient(core, "services", metav1.NamespaceAll, fields.Everything()),
		slices:   cache.NewListWatchFromClient(discovery, "endpointslices", metav1.NamespaceAll, fields.Everything()),
	}, nil
}

// watch makes the sources.
func (c *Cluster) watch(l lists) {
	pods := watched[*corev1.Pod]{
		set:    func(o *corev1.Pod) { c.pods.set(o, c.now()) },
		remove: func(key types.NamespacedName) { c.pods.remove(key, c.now()) },
		known:  func() []types.NamespacedName { return keys(c.pods.live) },
		strip:  func(o *corev1.Pod) *corev1.Pod { o.ManagedFields = nil; return o },
	}
	services := watched[*corev1.Service]{
		set:    func(o *corev1.Service) { c.services.set(o); c.outdate() },
		remove: func(key types.NamespacedName) { c.services.remove(key); c.outdate() },
		known:  func() []types.NamespacedName { return keys(c.services.byKey) },
		strip:  c.services.strip,
	}
	slices := watched[*discoveryv1.EndpointSlice]{
		set:    func(o *discoveryv1.EndpointSlice) { c.endpoints.set(o, c.now()); c.outdate() },
		remove: func(key types.NamespacedName) { c.endpoints.remove(key, c.now()); c.outdate() },
		known:  func() []types.NamespacedName { return keys(c.endpoints.slices) },
		strip:  c.endpoints.strip,
	}
	c.sources = []*source{
		{what: "pods of node " + c.cfg.Node, from: l.pods, kind: &corev1.Pod{}, store: pods.store(&c.mu)},
		{what: "Services", from: l.services, kind: &corev1.Service{}, store: services.store(&c.mu)},
		{what: "EndpointSlices", from: l.slices, kind: &discoveryv1.EndpointSlice{}, store: slices.store(&c.mu)},
	}
	var down atomic.Int32
	for _, s := range c.sources {
		s.store.listed = s.listed
		s.changed = func(err error) { c.tell(&down, err) }
	}
}

// tell says when the API server is lost, and when all of it is back.
func (c *Cluster) tell(down *atomic.Int32, err error) {
	if c.cfg.Changed == nil {
		return
	}
	switch {
	case err != nil && down.Add(1) == 1:
		c.cfg.Changed(fmt.Sprintf("Kubernetes: %s; names are as last known until it answers", reason(err)))
	case err == nil && down.Add(-1) == 0:
		c.cfg.Changed("Kubernetes: the API server answers again")
	}
}

// maxReason bounds the reported reason of a failed request: a refusal of the API server,
// which names user, verb and resource, takes some 200 bytes.
const maxReason = 400

// reason returns an error's text, which is the API server's as a rule, for one line.
func reason(err error) string { return oneline.Reason(err, maxReason) }

// watched is what is done with the objects of one kind.
type watched[T metav1.Object] struct {
	set    func(T)
	remove func(types.NamespacedName)
	known  func() []types.NamespacedName
	strip  func(T) T // leaves what set needs
}

func (w watched[T]) store(lock sync.Locker) *store {
	return &store{
		lock: lock,
		set: func(o any) {
			if x, ok := o.(T); ok {
				w.set(x)
			}
		},
		remove: func(o any) {
			if x, ok := o.(T); ok {
				w.remove(keyOf(x))
			}
		},
		replace: w.replace,
		strip: func(o any) (any, error) {
			if x, ok := o.(T); ok {
				return w.strip(x), nil
			}
			return o, nil
		},
	}
}

func (w watched[T]) replace(list []any) {
	listed := make(map[types.NamespacedName]bool, len(list))
	for _, o := range list {
		if x, ok := o.(T); ok {
			listed[keyOf(x)] = true
		}
	}
	for _, key := range w.known() {
		if !listed[key] {
			w.remove(key)
		}
	}
	for _, o := range list {
		if x, ok := o.(T); ok {
			w.set(x)
		}
	}
}

func keyOf(o metav1.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
}

func keys[V any](m map[types.NamespacedName]V) []types.NamespacedName {
	list := make([]types.NamespacedName, 0, len(m))
	for key := range m {
		list = append(list, key)
	}
	return list
}
