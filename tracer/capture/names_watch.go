package capture

import (
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// How often, and for how long, a new file is checked until a namespace is mounted on it:
// that is right after its creation (ip-netns(8)), or later on a busy node.
const (
	mountLook     = 200 * time.Microsecond
	mountPatience = 100 * time.Millisecond
)

// arrivals records new namespaces at once: one that goes again before the next round of
// packets would otherwise never be read.
type arrivals struct {
	dir     string
	watcher *fsnotify.Watcher

	mu   sync.Mutex
	seen map[uint32]string // since the last call of take
}

// watchArrivals watches dir, or returns nil if that fails: dir is created with its first
// namespace.
func watchArrivals(dir string) *arrivals {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil
	}
	if err := w.Add(dir); err != nil {
		_ = w.Close()
		return nil
	}
	a := &arrivals{dir: dir, watcher: w, seen: map[uint32]string{}}
	go a.run()
	return a
}

// run ends when the watcher is closed.
func (a *arrivals) run() {
	for {
		select {
		case event, ok := <-a.watcher.Events:
			if !ok {
				return
			}
			if event.Has(fsnotify.Create) {
				a.look(event.Name)
			}
		case _, ok := <-a.watcher.Errors:
			// What a full queue lost is read with the next round, if it is still there.
			if !ok {
				return
			}
		}
	}
}

// look notes the namespace that is mounted on a file.
func (a *arrivals) look(path string) {
	dir, err := stat(a.dir)
	if err != nil {
		return
	}
	for end := time.Now().Add(mountPatience); ; time.Sleep(mountLook) {
		file, err := stat(path)
		if err != nil {
			return // gone
		}
		if mounted := file.Dev != dir.Dev; mounted || time.Now().After(end) {
			if mounted {
				a.mu.Lock()
				a.seen[uint32(file.Ino)] = filepath.Base(path)
				a.mu.Unlock()
			}
			return
		}
	}
}

// take returns those that came since the last call.
func (a *arrivals) take() map[uint32]string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.seen) == 0 {
		return nil
	}
	seen := a.seen
	a.seen = map[uint32]string{}
	return seen
}

func (a *arrivals) close() error { return a.watcher.Close() }
