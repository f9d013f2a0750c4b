package kube

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	cachetest "k8s.io/client-go/tools/cache/testing"

	"github.com/dnstrace/dnstrace/trace"
)

// apiServer is client-go's fake, one for each kind, and whether it answers.
type apiServer struct {
	pods, services, slices *cachetest.FakeControllerSource
	mu                     sync.Mutex
	down                   bool
	takes                  time.Duration // to answer a request
	asked                  []time.Time
}

var errDown = errors.New("connection refused")

// endpoint is one kind of object of an apiServer.
type kindOf struct {
	server *apiServer
	from   *cachetest.FakeControllerSource
}

func (k kindOf) ListWithContext(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	if err := k.server.answers(ctx); err != nil {
		return nil, err
	}
	return k.from.List(o)
}

func (k kindOf) WatchWithContext(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	if err := k.server.answers(ctx); err != nil {
		return nil, err
	}
	if o.SendInitialEvents != nil { // the fake cannot stream a list, as servers before 1.32
		return nil, apierrors.NewInvalid(schema.GroupKind{}, "", nil)
	}
	return k.from.Watch(o)
}

// answers returns when a request is answered, and an error if it is not.
func (a *apiServer) answers(ctx context.Context) error {
	a.mu.Lock()
	takes := a.takes
	a.asked = append(a.asked, time.Now())
	a.mu.Unlock()
	if takes > 0 {
		select {
		case <-time.After(takes):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.down {
		return errDown
	}
	return nil
}

// requests returns when it was asked since the last call.
func (a *apiServer) requests() []time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	asked := a.asked
	a.asked = nil
	return asked
}

func (a *apiServer) setDown(down bool) {
	a.mu.Lock()
	a.down = down
	a.mu.Unlock()
	if down {
		for _, s := range []*cachetest.FakeControllerSource{a.pods, a.services, a.slices} {
			s.ResetWatch()
		}
	}
}

// cluster returns a Cluster that watches the server until the test ends.
func (a *apiServer) cluster(t *testing.T, changed func(string)) *Cluster {
	t.Helper()
	c := newCluster(Config{Node: node, Ports: []uint16{53}, Changed: changed}, time.Now)
	c.watch(lists{pods: kindOf{a, a.pods}, services: kindOf{a, a.services}, slices: kindOf{a, a.slices}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { c.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return c
}

func newAPIServer() *apiServer {
	return &apiServer{pods: cachetest.NewFakeControllerSource(), services: cachetest.NewFakeControllerSource(), slices: cachetest.NewFakeControllerSource()}
}

// eventually waits for what goroutines do.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

var _ cache.ListerWatcherWithContext = kindOf{}

// What is there at the start, what comes and goes, and an API server that is gone
// for a while, during which names stay and nothing is said of endpoints.
func TestWatch(t *testing.T) {
	api := newAPIServer()
	pod := aPod("web-1", uid, podIP.String())
	api.pods.Add(pod)
	api.services.Add(aService("kube-dns", vip.String(), corev1.ProtocolUDP, 53))
	api.slices.Add(aSlice("a", true, serverIP.String()))
	var mu sync.Mutex
	var said []string
	c := api.cluster(t, func(s string) { mu.Lock(); said = append(said, s); mu.Unlock() })
	name := func() (pod, endpoint string) {
		ex := lookup(0)
		ex.Client, ex.Time = &trace.Endpoint{Cgroup: cgroupOf(uid)}, time.Now()
		c.Exchange(ex)
		if ex.NAT.Endpoint != nil {
			endpoint = ex.NAT.Endpoint.State
		}
		return ex.Client.Pod, endpoint
	}
	is := func(pod, endpoint string) func() bool {
		return func() bool { p, e := name(); return p == pod && e == endpoint }
	}
	eventually(t, "everything is known", is("web-1", trace.EndpointReady))
	if st := c.State(); !st.Synced || st.Pods != 1 || st.Services != 1 || st.Endpoints != 1 {
		t.Errorf("state %+v", st)
	}
	api.slices.Modify(aSlice("a", true))
	eventually(t, "the endpoint is removed", is("web-1", trace.EndpointRemoved))
	api.setDown(true)
	eventually(t, "the API server is missed", func() bool { return strings.Contains(c.State().Err, errDown.Error()) })
	eventually(t, "names stay, endpoints are not known", is("web-1", ""))
	api.pods.Delete(pod)
	api.setDown(false)
	eventually(t, "it answers again, and the pod is gone", func() bool { st := c.State(); return st.Err == "" && st.Pods == 0 })
	eventually(t, "the pod is still named", is("web-1", trace.EndpointRemoved))
	mu.Lock()
	defer mu.Unlock()
	if len(said) == 0 || !strings.Contains(said[0], "as last known") || !strings.Contains(said[len(said)-1], "answers again") {
		t.Errorf("said %q", said)
	}
}

// An API server that is not there, or says nothing: nothing waits for it.
func TestAPIServerAbsentOrSilent(t *testing.T) {
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer silent.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for name, host := range map[string]string{"absent": "http://" + l.Addr().String(), "silent": silent.URL} {
		c, err := New(Config{API: &rest.Config{Host: host}, Node: node, Ports: []uint16{53}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { c.Run(ctx); close(done) }()
		ex := lookup(0)
		c.Exchange(ex)
		if ex.Client != nil || ex.Server != nil {
			t.Errorf("%s: %+v, %+v", name, ex.Client, ex.Server)
		}
		if name == "absent" {
			eventually(t, "the failure is reported", func() bool { return c.State().Err != "" })
		}
		if c.State().Synced {
			t.Errorf("%s: synced", name)
		}
		cancel()
		<-done
	}
}
