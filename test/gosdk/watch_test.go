package gosdk

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	logstypes "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	snstypes "github.com/aws/aws-sdk-go-v2/service/sns/types"
)

// TestLogs puts, reads, filters and follows log events.
func TestLogs(t *testing.T) {
	cfg := start(t)
	ctx := t.Context()
	c := cloudwatchlogs.NewFromConfig(cfg)
	group, stream := aws.String("/go/app"), aws.String("s")
	_, err := c.CreateLogGroup(ctx, &cloudwatchlogs.CreateLogGroupInput{LogGroupName: group})
	ok(t, nil, err)
	_, err = c.CreateLogGroup(ctx, &cloudwatchlogs.CreateLogGroupInput{LogGroupName: group})
	refused[*logstypes.ResourceAlreadyExistsException](t, "a second group of that name", nil, err)
	_, err = c.CreateLogStream(ctx, &cloudwatchlogs.CreateLogStreamInput{LogGroupName: group, LogStreamName: stream})
	ok(t, nil, err)
	put := func(from, n int) *cloudwatchlogs.PutLogEventsOutput {
		now := time.Now().UnixMilli()
		var events []logstypes.InputLogEvent
		for i := range n {
			word := "fine"
			if (from+i)%10 == 0 {
				word = "ERROR"
			}
			events = append(events, logstypes.InputLogEvent{Timestamp: aws.Int64(now + int64(i)), Message: aws.String(fmt.Sprintf("line %d %s", from+i, word))})
		}
		return must[*cloudwatchlogs.PutLogEventsOutput](t)(c.PutLogEvents(ctx, &cloudwatchlogs.PutLogEventsInput{LogGroupName: group, LogStreamName: stream, LogEvents: events}))
	}
	put(0, 100)
	got := must[*cloudwatchlogs.GetLogEventsOutput](t)(c.GetLogEvents(ctx, &cloudwatchlogs.GetLogEventsInput{LogGroupName: group, LogStreamName: stream, StartFromHead: aws.Bool(true), Limit: aws.Int32(7)}))
	if len(got.Events) != 7 || *got.Events[6].Message != "line 6 fine" || got.NextForwardToken == nil {
		t.Errorf("events: %+v", got)
	}
	var found []string
	n := pages(t, cloudwatchlogs.NewFilterLogEventsPaginator(c, &cloudwatchlogs.FilterLogEventsInput{LogGroupName: group, FilterPattern: aws.String("ERROR"), Limit: aws.Int32(4)}), func(p *cloudwatchlogs.FilterLogEventsOutput) {
		for _, e := range p.Events {
			found = append(found, *e.Message)
		}
	})
	if len(found) != 10 || found[9] != "line 90 ERROR" || n < 3 {
		t.Errorf("filtered on %d pages: %v", n, found)
	}
	_, err = c.FilterLogEvents(ctx, &cloudwatchlogs.FilterLogEventsInput{LogGroupName: group, FilterPattern: aws.String("{ $.a = ")})
	refused[*logstypes.InvalidParameterException](t, "half a pattern", nil, err)
	_, err = c.GetLogEvents(ctx, &cloudwatchlogs.GetLogEventsInput{LogGroupName: group, LogStreamName: aws.String("none")})
	refused[*logstypes.ResourceNotFoundException](t, "a stream that is not there", nil, err)

	// Live tail: an event stream, opened before what it is to show. The SDK
	// puts streaming- before the host; this server has one host for all.
	arn := "arn:aws:logs:us-east-1:123456789012:log-group:" + *group
	live := must[*cloudwatchlogs.StartLiveTailOutput](t)(c.StartLiveTail(ctx, &cloudwatchlogs.StartLiveTailInput{LogGroupIdentifiers: []string{arn}, LogEventFilterPattern: aws.String("ERROR")},
		func(o *cloudwatchlogs.Options) { o.APIOptions = append(o.APIOptions, hostAsItIs) }))
	tail := live.GetStream()
	defer tail.Close()
	started, seen := false, 0
	limit := time.After(soon)
	for seen < 2 {
		select {
		case e, more := <-tail.Events():
			switch e := e.(type) {
			case *logstypes.StartLiveTailResponseStreamMemberSessionStart:
				started = *e.Value.LogEventFilterPattern == "ERROR" && e.Value.SessionId != nil
				put(1000, 20)
			case *logstypes.StartLiveTailResponseStreamMemberSessionUpdate:
				for _, r := range e.Value.SessionResults {
					if *r.Message == "line 1000 ERROR" || *r.Message == "line 1010 ERROR" {
						seen++
					}
				}
			}
			if !more {
				t.Fatalf("the stream ended after %d: %v", seen, tail.Err())
			}
		case <-limit:
			t.Fatalf("started %v, %d lines", started, seen)
		}
	}
	if !started {
		t.Error("the session did not start as asked for")
	}
	_, err = c.DeleteLogGroup(ctx, &cloudwatchlogs.DeleteLogGroupInput{LogGroupName: group})
	ok(t, nil, err)
}

// TestSNS publishes, alone and in batches.
func TestSNS(t *testing.T) {
	cfg := start(t)
	ctx := t.Context()
	c := sns.NewFromConfig(cfg)
	topic := must[*sns.CreateTopicOutput](t)(c.CreateTopic(ctx, &sns.CreateTopicInput{Name: aws.String("news"), Tags: []snstypes.Tag{{Key: aws.String("a"), Value: aws.String("b")}}})).TopicArn
	for i := range 3 {
		_, err := c.Subscribe(ctx, &sns.SubscribeInput{TopicArn: topic, Protocol: aws.String("email"), Endpoint: aws.String(fmt.Sprintf("r%d@example.com", i)), ReturnSubscriptionArn: true})
		ok(t, nil, err)
	}
	subs := 0
	pages(t, sns.NewListSubscriptionsByTopicPaginator(c, &sns.ListSubscriptionsByTopicInput{TopicArn: topic}), func(p *sns.ListSubscriptionsByTopicOutput) { subs += len(p.Subscriptions) })
	one := must[*sns.PublishOutput](t)(c.Publish(ctx, &sns.PublishInput{TopicArn: topic, Message: aws.String("hällo & <you>"), Subject: aws.String("s"),
		MessageAttributes: map[string]snstypes.MessageAttributeValue{"n": {DataType: aws.String("Number"), StringValue: aws.String("1")}, "b": {DataType: aws.String("Binary"), BinaryValue: []byte{0, 255}}}}))
	if one.MessageId == nil || subs != 3 {
		t.Errorf("%d subscriptions, %+v", subs, one)
	}
	entry := func(id, text string) snstypes.PublishBatchRequestEntry {
		return snstypes.PublishBatchRequestEntry{Id: aws.String(id), Message: aws.String(text)}
	}
	batch := must[*sns.PublishBatchOutput](t)(c.PublishBatch(ctx, &sns.PublishBatchInput{TopicArn: topic, PublishBatchRequestEntries: []snstypes.PublishBatchRequestEntry{entry("a", "x"), entry("b", "y")}}))
	if len(batch.Successful) != 2 || len(batch.Failed) != 0 || *batch.Successful[1].Id != "b" {
		t.Errorf("batch: %+v", batch)
	}
	_, err := c.PublishBatch(ctx, &sns.PublishBatchInput{TopicArn: topic, PublishBatchRequestEntries: []snstypes.PublishBatchRequestEntry{entry("a", "x"), entry("a", "y")}})
	refused[*snstypes.BatchEntryIdsNotDistinctException](t, "an id twice", nil, err)
	_, err = c.PublishBatch(ctx, &sns.PublishBatchInput{TopicArn: topic, PublishBatchRequestEntries: []snstypes.PublishBatchRequestEntry{}})
	refused[*snstypes.EmptyBatchRequestException](t, "an empty batch", nil, err)
	_, err = c.Publish(ctx, &sns.PublishInput{TopicArn: aws.String(*topic + "-none"), Message: aws.String("x")})
	refused[*snstypes.NotFoundException](t, "a topic that is not there", nil, err)
	_, err = c.Publish(ctx, &sns.PublishInput{TopicArn: topic, Message: aws.String("")})
	refused[*snstypes.InvalidParameterException](t, "an empty message", nil, err)
	if attrs := must[*sns.GetTopicAttributesOutput](t)(c.GetTopicAttributes(ctx, &sns.GetTopicAttributesInput{TopicArn: topic})).Attributes; attrs["TopicArn"] != *topic || attrs["SubscriptionsPending"] != "3" {
		t.Errorf("attributes: %v", attrs)
	}
	_, err = c.DeleteTopic(ctx, &sns.DeleteTopicInput{TopicArn: topic})
	ok(t, nil, err)
	var missing *snstypes.NotFoundException
	if _, err = c.GetTopicAttributes(ctx, &sns.GetTopicAttributesInput{TopicArn: topic}); !errors.As(err, &missing) {
		t.Errorf("a deleted topic: %v", err)
	}
}
