package sns

import (
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"slipway/internal/aws/dispatch"
)

// clientScript is what a person's script does with boto3: every answer goes
// through botocore's own parser.
const clientScript = `
import boto3, json
sns = boto3.client("sns")
E = sns.exceptions
t = sns.create_topic(Name="news", Attributes={"DisplayName": "News"}, Tags=[{"Key": "team", "Value": "web"}])["TopicArn"]
assert t == "arn:aws:sns:us-east-1:123456789012:news" and sns.create_topic(Name="news")["TopicArn"] == t
assert sns.list_tags_for_resource(ResourceArn=t)["Tags"] == [{"Key": "team", "Value": "web"}]
sns.tag_resource(ResourceArn=t, Tags=[{"Key": "a", "Value": "b"}]); sns.untag_resource(ResourceArn=t, TagKeys=["team"])
assert sns.list_tags_for_resource(ResourceArn=t)["Tags"] == [{"Key": "a", "Value": "b"}]
for n in range(120): sns.create_topic(Name="t%03d" % n)
pages = list(sns.get_paginator("list_topics").paginate())
assert len(pages) == 2 and sum(len(p["Topics"]) for p in pages) == 121, pages
s = sns.subscribe(TopicArn=t, Protocol="email", Endpoint="me@slipway.local", Attributes={"FilterPolicy": json.dumps({"kind": ["x"]})})["SubscriptionArn"]
a = sns.get_subscription_attributes(SubscriptionArn=s)["Attributes"]
assert a["PendingConfirmation"] == "false" and json.loads(a["FilterPolicy"]) == {"kind": ["x"]} and a["FilterPolicyScope"] == "MessageAttributes", a
p = sns.subscribe(TopicArn=t, Protocol="email-json", Endpoint="you@example.com")["SubscriptionArn"]
assert p == "pending confirmation"
assert sorted(x["SubscriptionArn"] for x in sns.list_subscriptions_by_topic(TopicArn=t)["Subscriptions"]) == sorted([s, "PendingConfirmation"])
m = sns.publish(TopicArn=t, Message="hello", Subject="Hi", MessageAttributes={"kind": {"DataType": "String", "StringValue": "x"}, "raw": {"DataType": "Binary", "BinaryValue": b"\x00\xff"}})
assert len(m["MessageId"]) == 36
b = sns.publish_batch(TopicArn=t, PublishBatchRequestEntries=[{"Id": "1", "Message": "m"}, {"Id": "2", "Message": "m", "Subject": "bad\nsubject"}])
assert [x["Id"] for x in b["Successful"]] == ["1"] and b["Failed"][0]["Code"] == "InvalidParameter" and b["Failed"][0]["SenderFault"] is True, b
sns.add_permission(TopicArn=t, Label="other", AWSAccountId=["111122223333"], ActionName=["Publish"])
pol = json.loads(sns.get_topic_attributes(TopicArn=t)["Attributes"]["Policy"])
assert [x["Sid"] for x in pol["Statement"]] == ["__default_statement_ID", "other"] and pol["Statement"][1]["Principal"]["AWS"] == "arn:aws:iam::111122223333:root", pol
sns.remove_permission(TopicArn=t, Label="other")
sns.set_topic_attributes(TopicArn=t, AttributeName="SignatureVersion", AttributeValue="2")
assert sns.get_topic_attributes(TopicArn=t)["Attributes"]["SignatureVersion"] == "2"
for f, want in [(lambda: sns.publish(TopicArn=t + "x", Message="m"), E.NotFoundException), (lambda: sns.publish(TopicArn=t, Message=""), E.InvalidParameterException),
                (lambda: sns.list_tags_for_resource(ResourceArn=t + "x"), E.ResourceNotFoundException), (lambda: sns.unsubscribe(SubscriptionArn="x"), E.InvalidParameterException),
                (lambda: sns.confirm_subscription(TopicArn=t, Token="00"), E.InvalidParameterException), (lambda: sns.publish_batch(TopicArn=t, PublishBatchRequestEntries=[]), E.EmptyBatchRequestException)]:
    try:
        f()
    except want as e:
        assert e.response["ResponseMetadata"]["RequestId"]
    else:
        raise SystemExit("no %s" % want)
sns.unsubscribe(SubscriptionArn=s); sns.delete_topic(TopicArn=t); sns.delete_topic(TopicArn=t)
assert sns.list_subscriptions()["Subscriptions"] == []
`

func TestBoto3(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("needs python3 with boto3: not found")
	}
	if err := exec.Command(python, "-c", "import boto3").Run(); err != nil {
		t.Skip("needs python3 with boto3: boto3 is not installed")
	}
	r := newRig(t, nil)
	server := httptest.NewServer(r.mux.Handler(dispatch.Config{AuthAny: true, Account: account, Now: time.Now}))
	defer server.Close()
	script := filepath.Join(t.TempDir(), "client.py")
	if err := os.WriteFile(script, []byte(clientScript), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, script)
	cmd.Env = append(os.Environ(), "AWS_ENDPOINT_URL="+server.URL, "AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY=secret", "AWS_REGION="+region, "AWS_DEFAULT_REGION="+region)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, m := range r.mails(3) { // welcome, confirmation, and the one that the filter lets through
		if m.Subject == "Hi" {
			return
		}
	}
	t.Errorf("mails: %+v", r.mails(3))
}
