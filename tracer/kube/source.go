package kube

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// How long the API server may take: for a list as long as it itself gives a
// request, and to begin a watch.
const (
	listWithin  = time.Minute
	watchWithin = 30 * time.Second
)

var errNoAnswer = fmt.Errorf("no answer within %s", watchWithin)

// source watches one kind of object and keeps a store up to date with it. It is
// the ListerWatcher of its reflector, so that it sees the result of each request.
type source struct {
	what    string // for messages: pods of this node
	from    cache.ListerWatcherWithContext
	kind    runtime.Object
	store   *store
	changed func(error)

	mu       sync.Mutex
	synced   bool
	err      error // of the last request; nil: it worked
	failures uint64
}

// run watches until ctx ends. A reflector pauses after failures, twice as long each
// time, 30 s at most, and asks for all anew where it missed something.
func (s *source) run(ctx context.Context) {
	// It logs each failure; we say what changed.
	silent := logr.Discard()
	ctx = klog.NewContext(ctx, silent)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		cache.NewReflectorWithOptions(s, s.kind, s.store, cache.ReflectorOptions{Logger: &silent, Name: s.what}).RunWithContext(ctx)
	}()
	// While a server refuses connections the reflector pauses without regard to ctx
	// (client-go's reflector.watchList). What it does after that is to end.
	select {
	case <-ended:
	case <-ctx.Done():
	}
}

// health tells whether all was listed once, how many requests failed, and the
// error of the last one.
func (s *source) health() (synced bool, failures uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.synced, s.failures, s.err
}

// note takes the outcome of a request.
func (s *source) note(err error) {
	if errors.Is(err, context.Canceled) {
		return // we stop
	}
	s.mu.Lock()
	changed := (err == nil) != (s.err == nil)
	s.err = nil
	if err != nil {
		s.failures++
		s.err = fmt.Errorf("%s: %w", s.what, err)
	}
	current := s.err
	s.mu.Unlock()
	if changed && s.changed != nil {
		s.changed(current)
	}
}

// listed is called when the store holds all there is.
func (s *source) listed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.synced = true
}

// List implements cache.Lister.
func (s *source) List(options metav1.ListOptions) (runtime.Object, error) {
	return s.ListWithContext(context.Background(), options)
}

// Watch implements cache.Watcher.
func (s *source) Watch(options metav1.ListOptions) (watch.Interface, error) {
	return s.WatchWithContext(context.Background(), options)
}

// ListWithContext implements cache.ListerWithContext.
func (s *source) ListWithContext(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	ctx, cancel := context.WithTimeout(ctx, listWithin)
	defer cancel()
	o, err := s.from.ListWithContext(ctx, options)
	s.note(err)
	return o, err
}

// WatchWithContext implements cache.WatcherWithContext. An established watch shows that the
// API server answers.
func (s *source) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	ctx, cancel := context.WithCancel(ctx)
	silent := time.AfterFunc(watchWithin, cancel)
	w, err := s.from.WatchWithContext(ctx, options)
	if !silent.Stop() {
		if err == nil {
			w.Stop()
		}
		err = errNoAnswer
	}
	if options.SendInitialEvents != nil && apierrors.IsInvalid(err) {
		// It answers: before Kubernetes 1.32 it cannot stream a list, and gets an ordinary
		// list request.
		s.note(nil)
	} else {
		s.note(err)
	}
	if err != nil {
		cancel()
		return nil, err
	}
	return &watching{w, cancel}, nil
}

// watching is a watch that has begun.
type watching struct {
	watch.Interface
	cancel context.CancelFunc
}

// Stop implements watch.Interface.
func (w *watching) Stop() {
	w.Interface.Stop()
	w.cancel()
}

// store is what a reflector writes into. Objects are not kept: set takes what is
// needed from them.
type store struct {
	lock    sync.Locker
	set     func(any)
	remove  func(any)
	replace func([]any)
	strip   cache.TransformFunc
	listed  func()
}

// Transformer implements cache.TransformingStore: it strips each object of a list when it
// arrives, not when all have.
func (s *store) Transformer() cache.TransformFunc { return s.strip }

// Add implements cache.ReflectorStore.
func (s *store) Add(o any) error { return s.Update(o) }

// Update implements cache.ReflectorStore.
func (s *store) Update(o any) error {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.set(o)
	return nil
}

// Delete implements cache.ReflectorStore.
func (s *store) Delete(o any) error {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.remove(o)
	return nil
}

// Replace implements cache.ReflectorStore: what is not in the list is gone.
func (s *store) Replace(list []any, _ string) error {
	s.lock.Lock()
	s.replace(list)
	s.lock.Unlock()
	s.listed()
	return nil
}

// Resync implements cache.ReflectorStore.
func (s *store) Resync() error { return nil }
