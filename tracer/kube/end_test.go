package kube

import (
	"context"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
)

// refusing is an API server behind whose address nobody listens.
type refusing struct{}

func (refusing) ListWithContext(context.Context, metav1.ListOptions) (runtime.Object, error) {
	return nil, syscall.ECONNREFUSED
}

func (refusing) WatchWithContext(context.Context, metav1.ListOptions) (watch.Interface, error) {
	return nil, syscall.ECONNREFUSED
}

// At the end the tracer does not wait for the next request to an API server that refuses,
// which may be half a minute away.
func TestEndWhileAPIServerRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := &source{what: "pods", from: refusing{}, kind: &corev1.Pod{}, store: &store{lock: new(sync.Mutex)}}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			s.run(ctx)
		}()
		time.Sleep(3 * time.Minute)
		if _, failures, err := s.health(); failures < 5 || err == nil {
			t.Errorf("%d failures, %v", failures, err)
		}
		cancel()
		synctest.Wait()
		select {
		case <-ended:
		default:
			t.Error("it pauses on")
		}
		time.Sleep(2 * time.Minute) // the reflector's pause is over, and it has ended too
	})
}
