package integration

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// faultsPage names the test of each fault and attack, and threatsPage those of who may
// attack from where.
const (
	faultsPage  = "../docs/faults.md"
	threatsPage = "../docs/threat-model.md"
)

// namedTest is how it does so: the name, and the file below the top.
var namedTest = regexp.MustCompile("\\[`((?:Test|Fuzz)\\w+)`\\]\\(\\.\\./([\\w/]+_test\\.go)\\)")

// testFunction begins a test or a fuzz target.
var testFunction = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(\w+ \*testing\.[TF]\)`)

// functions returns the tests of files, as "name in file".
func functions(t *testing.T, paths ...string) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	for _, path := range paths {
		content, err := os.ReadFile(filepath.Join("..", path))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range testFunction.FindAllStringSubmatch(string(content), -1) {
			all[m[1]+" in "+path] = true
		}
	}
	return all
}

// namedIn returns the tests that a page names, as "name in file". Each must exist.
func namedIn(t *testing.T, page string) map[string]bool {
	t.Helper()
	content, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	for _, m := range namedTest.FindAllStringSubmatch(string(content), -1) {
		named[m[1]+" in "+m[2]] = true
		if !functions(t, m[2])[m[1]+" in "+m[2]] {
			t.Errorf("%s names %s, which is not in %s", page, m[1], m[2])
		}
	}
	return named
}

// Each test of a fault, of an attack or of privileges, and each fuzz target, is named on
// the page.
func TestFaultsPageNamesTheTests(t *testing.T) {
	named := namedIn(t, faultsPage)
	for _, test := range slices.Sorted(maps.Keys(promised(t))) {
		if !named[test] {
			t.Errorf("%s does not name %s", faultsPage, test)
		}
	}
}

// Each line of the threat model names a test that tries it, and each attack that the
// project tries from outside is in a line.
func TestThreatsAreTried(t *testing.T) {
	named := namedIn(t, threatsPage)
	content, err := os.ReadFile(threatsPage)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(content)) {
		row := strings.HasPrefix(line, "| ") && !strings.HasPrefix(line, "| it tries |")
		if row && !namedTest.MatchString(line) {
			t.Errorf("%s: no test tries it: %s", threatsPage, line)
		}
	}
	attack := regexp.MustCompile(`^Test(Hostile|Forged|Spoofed)`)
	for _, test := range slices.Sorted(maps.Keys(promised(t))) {
		if attack.MatchString(test) && !named[test] && !strings.HasPrefix(test, "TestHostileMessagesSeed") {
			t.Errorf("%s does not name %s", threatsPage, test)
		}
	}
}

// promised are the tests that the page has to name.
func promised(t *testing.T) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	for _, pattern := range []string{"fault_*_test.go", "hostile_*_test.go", "hostile_test.go", "privilege*_test.go", "seccomp_*_test.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v, %v", pattern, files, err)
		}
		for _, f := range files {
			maps.Copy(all, functions(t, "integration/"+f))
		}
	}
	err := filepath.WalkDir("..", func(path string, d os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, "_test.go") {
			path = strings.TrimPrefix(filepath.ToSlash(path), "../")
			for name := range functions(t, path) {
				if strings.HasPrefix(name, "Fuzz") {
					all[name] = true
				}
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
