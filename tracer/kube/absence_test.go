package kube

import (
	"context"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	cachetest "k8s.io/client-go/tools/cache/testing"

	"github.com/dnstrace/dnstrace/trace"
)

// longestPause is that of client-go's reflector: 30 s, and up to as much again by
// chance, so that not all nodes ask at once (tools/cache/reflector.go).
const longestPause = time.Minute

// inBubble runs a test with a clock of its own, which a wait does not hold up.
// takes is how long the API server takes for its first answers.
func inBubble(t *testing.T, takes time.Duration, test func(t *testing.T, api *apiServer, c *Cluster, said *[]string)) {
	// One of them makes sure that errors are a millisecond apart, and counts from when
	// this process began, by the clock outside.
	handlers := utilruntime.ErrorHandlers
	utilruntime.ErrorHandlers = nil
	defer func() { utilruntime.ErrorHandlers = handlers }()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(start)) // the objects are of that time
		api := newAPIServer()
		api.takes = takes
		defer func() {
			for _, s := range []*cachetest.FakeControllerSource{api.pods, api.services, api.slices} {
				s.Shutdown()
			}
		}()
		api.pods.Add(aPod("web-1", uid, podIP.String()))
		api.services.Add(aService("kube-dns", vip.String(), corev1.ProtocolUDP, 53))
		api.slices.Add(aSlice("a", true, serverIP.String()))
		var said []string
		c := newCluster(Config{Node: node, Ports: []uint16{53}, Changed: func(s string) { said = append(said, s) }}, time.Now)
		c.watch(lists{pods: kindOf{api, api.pods}, services: kindOf{api, api.services}, slices: kindOf{api, api.slices}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { c.Run(ctx); close(done) }()
		defer func() { cancel(); <-done }()
		test(t, api, c, &said)
	})
}

// clientAt names the client of a lookup that was made just now. It takes no time.
func clientAt(t *testing.T, c *Cluster, addr netip.Addr) string {
	t.Helper()
	ex := lookup(0)
	ex.ClientIP, ex.Time = addr, time.Now()
	c.Exchange(ex)
	if took := time.Since(ex.Time); took != 0 {
		t.Errorf("a lookup waited %s for the API server", took)
	}
	if ex.Client == nil {
		return ""
	}
	return ex.Client.Pod
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// An API server that is gone for an hour is asked again all the time, names stay, no
// memory grows, and when it is back all that changed meanwhile is known.
func TestAPIServerGoneForAnHour(t *testing.T) {
	inBubble(t, 0, func(t *testing.T, api *apiServer, c *Cluster, said *[]string) {
		time.Sleep(time.Minute)
		if got := clientAt(t, c, podIP); got != "web-1" {
			t.Fatalf("before: %q", got)
		}
		api.setDown(true)
		time.Sleep(5 * time.Minute)
		api.requests()
		before := heap()
		for range 55 {
			time.Sleep(time.Minute)
			if got := clientAt(t, c, podIP); got != "web-1" {
				t.Fatalf("the name is lost: %q", got)
			}
			// Each of three kinds as a stream and as a list: every two minutes client-go
			// begins with short pauses again, and six fit into the first of them.
			const most = 3 * 2 * 7
			if asked := len(api.requests()); asked == 0 || asked > most {
				t.Errorf("asked %d times in a minute, expected 1 to %d", asked, most)
			}
		}
		if after := heap(); after > before+1<<20 {
			t.Errorf("the heap grew from %d to %d bytes", before, after)
		}
		if st := c.State(); !strings.Contains(st.Err, errDown.Error()) || st.Failures < 3*60 || st.Pods != 1 {
			t.Errorf("state %+v", st)
		}
		// A pod came, one went, and an endpoint moved while nobody could tell.
		second := netip.MustParseAddr("10.244.0.8")
		api.pods.Delete(aPod("web-1", uid, podIP.String()))
		api.pods.Add(aPod("web-2", otherUID, second.String()))
		api.slices.Modify(aSlice("a", true, "10.244.1.9"))
		api.setDown(false)
		time.Sleep(longestPause + time.Second)
		if got := clientAt(t, c, second); got != "web-2" {
			t.Errorf("a minute after it is back, the pod that came is %q", got)
		}
		if st := c.State(); st.Err != "" || !st.Synced || st.Pods != 1 || st.Endpoints != 1 {
			t.Errorf("state %+v", st)
		}
		// A lookup of the pod that went is reported late.
		late := lookup(0)
		late.Client, late.Time = &trace.Endpoint{Cgroup: cgroupOf(uid)}, time.Now().Add(-2*longestPause)
		if c.Exchange(late); late.Client.Pod != "web-1" {
			t.Errorf("the pod that went is %q", late.Client.Pod)
		}
		if len(*said) != 2 || !strings.Contains((*said)[0], "as last known") || !strings.Contains((*said)[1], "answers again") {
			t.Errorf("said %q", *said)
		}
	})
}

// An API server that takes ten seconds for an answer, and one that takes longer than
// it is waited for: lookups wait for neither, and a pod that lived for a second has
// its name.
func TestSlowAPIServer(t *testing.T) {
	inBubble(t, 10*time.Second, func(t *testing.T, api *apiServer, c *Cluster, _ *[]string) {
		if got := clientAt(t, c, podIP); got != "" {
			t.Errorf("known before the API server answered: %q", got)
		}
		time.Sleep(25 * time.Second)
		if st := c.State(); clientAt(t, c, podIP) != "web-1" || !st.Synced || st.Failures != 0 {
			t.Errorf("state %+v", st)
		}
		brief, addr := aPod("brief", otherUID, "10.244.0.9"), netip.MustParseAddr("10.244.0.9")
		api.pods.Add(brief)
		time.Sleep(time.Second)
		alive := time.Now()
		api.pods.Delete(brief.DeepCopy())
		time.Sleep(5 * time.Second)
		ex := lookup(0)
		ex.ClientIP, ex.Time = addr, alive.Add(-time.Millisecond)
		if c.Exchange(ex); ex.Client == nil || ex.Client.Pod != "brief" {
			t.Errorf("the pod that lived for a second is %+v", ex.Client)
		}
		api.mu.Lock()
		api.takes = 2 * listWithin
		api.mu.Unlock()
		api.pods.ResetWatch()
		time.Sleep(3 * listWithin)
		if st := c.State(); st.Err == "" || st.Failures == 0 || clientAt(t, c, podIP) != "web-1" {
			t.Errorf("state %+v", st)
		}
	})
}

// Watches that end every few seconds, as behind a proxy with a short timeout: names
// stay, and nothing is kept of each.
func TestManyReconnects(t *testing.T) {
	inBubble(t, 0, func(t *testing.T, api *apiServer, c *Cluster, _ *[]string) {
		time.Sleep(time.Minute)
		before := heap()
		for i := range 500 {
			for _, s := range []*cachetest.FakeControllerSource{api.pods, api.services, api.slices} {
				s.ResetWatch()
			}
			time.Sleep(5 * time.Second)
			if got := clientAt(t, c, podIP); got != "web-1" {
				t.Fatalf("after %d: %q", i, got)
			}
		}
		if after := heap(); after > before+1<<20 {
			t.Errorf("the heap grew from %d to %d bytes", before, after)
		}
		if asked := len(api.requests()); asked < 500 {
			t.Errorf("asked %d times: these were no reconnects", asked)
		}
	})
}
