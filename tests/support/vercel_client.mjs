// A person at a page made with Vercel's AI SDK: asks, asks again, wants another answer, changes a question.
// Usage: node vercel_client.mjs URL_OF_THE_ROUTE; prints what the page would show as JSON.
import { AbstractChat, DefaultChatTransport } from 'ai';

class Chat extends AbstractChat {
  constructor(api) {
    const state = {
      status: 'ready',
      error: undefined,
      messages: [],
      pushMessage: message => state.messages.push(message),
      popMessage: () => state.messages.pop(),
      replaceMessage: (index, message) => { state.messages[index] = message; },
      snapshot: structuredClone,
    };
    super({ transport: new DefaultChatTransport({ api }), state });
  }

  shown() {
    const messages = this.messages.map(({ id, role, parts }) => ({ id, role, parts }));
    return { id: this.id, status: this.status, error: this.error?.message, messages };
  }
}

const chat = new Chat(process.argv[2]);
const seen = {};
await chat.sendMessage({ text: 'What time is it?' });
seen.tool = chat.shown();
await chat.sendMessage({ text: 'Thank you' });
seen.second = chat.shown();
await chat.regenerate();
seen.again = chat.shown();
await chat.sendMessage({ text: 'My name is Zoë', messageId: chat.messages[0].id });
seen.edited = chat.shown();
await chat.sendMessage({ text: 'Who am I?' });
seen.last = chat.shown();

// Approves one call of a tool and denies another, and goes on without a word on a third.
const asks = new Chat(process.argv[2]);
async function ask(approved, reason) {
  await asks.sendMessage({ text: 'Please change the title' });
  const { approval } = asks.lastMessage.parts.find(({ state }) => state === 'approval-requested');
  if (approved === undefined) return;
  await asks.addToolApprovalResponse({ id: approval.id, approved, reason });
  await asks.sendMessage();
}
await ask(true);
seen.approved = asks.shown();
await ask(false, 'Not now.');
seen.denied = asks.shown();
await ask();
await asks.sendMessage({ text: 'Never mind' });
seen.undecided = asks.shown();

const refused = new Chat(process.argv[2].replace('/assistant/', '/nobody/'));
await refused.sendMessage({ text: 'Hello' });
seen.refused = refused.shown();
console.log(JSON.stringify(seen));
