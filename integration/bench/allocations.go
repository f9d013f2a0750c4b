package main

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// mallocsMetric counts what a process has allocated since its start.
const mallocsMetric = "go_memstats_mallocs_total"

// scrapePatience bounds a look at the metrics of a server.
const scrapePatience = 10 * time.Second

// mallocs returns the allocations of the server since its start, without those
// of being asked for them.
func (s *server) mallocs() (float64, error) {
	first, err := s.scrape()
	if err != nil {
		return 0, err
	}
	second, err := s.scrape()
	if err != nil {
		return 0, err
	}
	s.scraped += 2 * (second - first)
	return second - s.scraped, nil
}

// families reads the metrics.
func (s *server) families() (map[string]*dto.MetricFamily, error) {
	client := http.Client{Timeout: scrapePatience}
	resp, err := client.Get("http://" + s.metrics + "/metrics")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("the metrics of CoreDNS: %w", err)
	}
	return families, nil
}

// scrape reads the metric.
func (s *server) scrape() (float64, error) {
	families, err := s.families()
	if err != nil {
		return 0, err
	}
	f := families[mallocsMetric]
	if f == nil || f.GetType() != dto.MetricType_COUNTER || len(f.GetMetric()) != 1 {
		return 0, errors.New("CoreDNS has no counter " + mallocsMetric)
	}
	return f.GetMetric()[0].GetCounter().GetValue(), nil
}

// allocations is how many allocations a workload took in how many queries.
type allocations struct {
	count   float64
	queries int
}

// perQuery returns the allocations a query.
func (a allocations) perQuery() float64 { return a.count / float64(a.queries) }
